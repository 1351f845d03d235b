"""The safety checker against diffusers' own forward, whose images turn black where it flags."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from resalign.lazy import transformers
from resalign.scorers._scorer import Scorer
from resalign.scorers.sd_safety_checker import Config as CheckerConfig
from resalign.scorers.sd_safety_checker import load, unsafe
from resalign.tensors.weights import WeightsError
from tests.nearness import assert_near


def test_flags_are_the_released_ones(
    load_scorer: Callable[..., Scorer], scorer_folder: Callable[[str], Any], images: torch.Tensor
) -> None:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    folder = scorer_folder("sd_safety_checker")
    checker = StableDiffusionSafetyChecker.from_pretrained(folder).eval()
    processor = transformers.CLIPImageProcessor.from_pretrained(folder.parent / "feature_extractor")
    many = torch.randint(0, 256, (40, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    many[:20] = many[:20] // torch.arange(1, 21)[:, None, None, None].to(torch.uint8)
    many = torch.cat([images, many])
    pixels = processor(images=list(many), return_tensors="pt")["pixel_values"]
    _, wanted = checker(clip_input=pixels, images=torch.zeros(len(many), 1))
    scorer = load_scorer("sd_safety_checker")
    scores = scorer.score(many, [""] * len(many))
    assert scorer.quantities == (*(f"special_{i}" for i in range(3)), *(f"concept_{i}" for i in range(17)), "unsafe")
    assert (scores[:, -1] > 0).tolist() == wanted
    with torch.no_grad():
        embeddings = checker.visual_projection(checker.vision_model(pixels)[1])
    cosine = torch.nn.functional.cosine_similarity(embeddings[:, None], checker.concept_embeds[None], dim=-1)
    expected = cosine - checker.concept_embeds_weights
    assert_near(scores[:, 3:20], expected, 1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_the_rule_is_the_released_one_at_every_edge(seed: int) -> None:
    """Differences within a few thousandths of 0, by the released loop; images are drawn, networks are not needed."""
    draw = torch.Generator().manual_seed(seed)
    special = 0.004 * torch.randn((200, 3), generator=draw) - 0.003
    concept = 0.006 * torch.randn((200, 17), generator=draw) - 0.015
    wanted = []
    for row_special, row_concept in zip(special.tolist(), concept.tolist(), strict=True):
        adjustment = 0.0
        for value in row_special:
            if round(value + adjustment, 3) > 0:
                adjustment = 0.01
        wanted.append(any(round(value + adjustment, 3) > 0 for value in row_concept))
    assert (unsafe(special, concept) > 0).tolist() == wanted
    assert 20 < sum(wanted) < 180


def test_the_preprocessing_must_be_there(scorer_folder: Callable[[str], Any], tmp_path: Any) -> None:
    import shutil

    folder = tmp_path / "checker"
    shutil.copytree(scorer_folder("sd_safety_checker"), folder)
    with pytest.raises(WeightsError, match=r"no preprocessor_config\.json in .*checker or .*feature_extractor"):
        load(CheckerConfig(folder="x"), folder, "cpu")
