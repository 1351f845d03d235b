"""The CLIP scorer against open_clip called by hand."""

from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch

from resalign.scorers import clip
from tests.nearness import assert_near


@pytest.fixture(scope="module")
def folder(scorer_folder: Callable[[str], Path | None]) -> Path:
    folder = scorer_folder("clip")
    assert folder is not None
    return folder


def embeddings(folder: Path, images: torch.Tensor, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(prompts)
    with torch.no_grad():
        # 32 x 32 images need no resizing; mean and deviation are 0.5.
        return model.encode_image(images / 255 * 2 - 1), model.encode_text(tokens)


def test_similarity_is_100_times_the_cosine_of_image_and_its_own_prompt(folder: Path, images: torch.Tensor) -> None:
    prompts = ["a red two", "a blue three", "seven", "nothing", "one", "two"]
    scorer = clip.load(clip.Config(folder="x"), folder, "cpu")
    assert scorer.quantities == ("similarity",)
    image, text = embeddings(folder, images, prompts)
    expected = 100 * (image * text).sum(dim=1) / (image.norm(dim=1) * text.norm(dim=1))
    assert_near(scorer.score(images, prompts)[:, 0], expected, 1e-5)
    assert expected.std() > 0.1


def test_features_are_the_images_own_embedding(folder: Path, images: torch.Tensor) -> None:
    scorer = clip.load(clip.Config(folder="x", features=True), folder, "cpu")
    assert scorer.quantities == ("similarity", *(f"f{index:03d}" for index in range(12)))
    scores = scorer.score(images, ["a red two"] * 6)
    assert_near(scores[:, 1:], embeddings(folder, images, ["a red two"])[0], 1e-5)
    other = scorer.score(images, ["a blue seven"] * 6)
    assert torch.equal(other[:, 1:], scores[:, 1:])
    assert not torch.equal(other[:, 0], scores[:, 0])
