"""Scorers that read CLIP's image embedding, against their formulas on an embedding that open_clip gives by hand."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

from resalign.config.strict import ConfigError
from resalign.scorers import inception, mhsc, q16, zero_shot_clip
from resalign.scorers._scorer import Scorer
from resalign.tensors.weights import WeightsError
from tests.example_config import smallest
from tests.nearness import assert_near

from .conftest import CATEGORIES, AestheticV2, NsfwHead, mhsc_head, seeded

NO_PROMPTS = [""] * 6
FLOAT32 = 1e-5  # of the largest score
Load = Callable[..., Scorer]


@pytest.fixture(scope="module")
def clip(scorer_folder: Callable[[str], Any]) -> Any:
    return open_clip.create_model(f"local-dir:{scorer_folder('q16')['folder']}").eval()


@pytest.fixture
def embeddings(clip: Any, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        # 32 x 32 images need no resizing; mean and deviation are 0.5.
        found: torch.Tensor = clip.encode_image(images / 255 * 2 - 1)
    return found


def unit(vectors: torch.Tensor) -> torch.Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)


# --- Q16 --------------------------------------------------------------------------------------------------------------


def test_q16_is_the_second_prompts_share(
    load_scorer: Load,
    scorer_folder: Callable[[str], Any],
    images: torch.Tensor,
    embeddings: torch.Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directions = unit(embeddings)
    between = directions.mean(dim=0), 0.3 * (directions[0] - directions[-1])
    array = torch.stack([between[0] - between[1], between[0] + between[1]]).half().numpy()  # images on either side
    (tmp_path / "prompts.p").write_bytes(pickle.dumps(array, protocol=4))
    monkeypatch.setitem(scorer_folder("q16"), "head", tmp_path)
    scorer = load_scorer("q16")
    assert scorer.quantities == ("inappropriate",)
    found = scorer.score(images, NO_PROMPTS)[:, 0]
    similarity = 100 * directions @ unit(torch.from_numpy(array.astype("float32"))).T
    assert_near(found, torch.sigmoid(similarity[:, 1] - similarity[:, 0]), FLOAT32)
    assert (found - 0.5).abs().min() > 2 * FLOAT32  # no image is so near to the threshold that rounding decides
    assert torch.equal(found > 0.5, similarity.argmax(dim=1) == 1)
    assert 0 < (found > 0.5).sum() < 6


def test_q16_of_another_size_fails(
    scorer_folder: Callable[[str], Any], load_scorer: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompts.p").write_bytes(pickle.dumps(np.zeros((2, 13), dtype="float16"), protocol=4))
    monkeypatch.setitem(scorer_folder("q16"), "head", tmp_path)
    with pytest.raises(WeightsError, match=r"shape \(2, 13\), the CLIP in .* has 12"):
        load_scorer("q16")


@pytest.mark.parametrize(
    ("module", "published"),
    [(q16, q16.PROMPTS_SHA256), (mhsc, mhsc.HEADS_SHA256["sexual"]), (inception, inception.WEIGHTS_SHA256)],
)
def test_other_files_than_the_published_are_refused(
    module: Any, published: str, scorer_folder: Callable[[str], Any]
) -> None:
    name = module.__name__.rpartition(".")[2]
    with pytest.raises(WeightsError, match=f"expected {published}"):
        module.load(smallest(module.Config), scorer_folder(name), "cpu")


# --- MHSC -------------------------------------------------------------------------------------------------------------


def test_mhsc_heads_are_the_sources(load_scorer: Load, images: torch.Tensor, embeddings: torch.Tensor) -> None:
    scorer = load_scorer("mhsc", preprocessing="deterministic")
    assert scorer.quantities == CATEGORIES
    with torch.no_grad():
        expected = torch.cat([mhsc_head(seed)(embeddings).sigmoid() for seed in range(5)], dim=1)
    found = scorer.score(images, NO_PROMPTS)
    assert_near(found, expected, FLOAT32)
    assert found.std(dim=0).min() > 1e-4


def test_mhsc_asks_the_heads_that_are_named(load_scorer: Load, images: torch.Tensor) -> None:
    whole, some = (load_scorer("mhsc", **values) for values in ({}, {"categories": ("political", "sexual")}))
    assert some.quantities == ("political", "sexual")
    assert_near(some.score(images, NO_PROMPTS), whole.score(images, NO_PROMPTS)[:, [4, 0]], FLOAT32)


def test_mhsc_crops_by_seed_and_pixels_alone(load_scorer: Load, images: torch.Tensor) -> None:
    paper, again, other = (load_scorer("mhsc", seed=seed).score(images, NO_PROMPTS) for seed in (1, 1, 2))
    fixed = load_scorer("mhsc", preprocessing="deterministic").score(images, NO_PROMPTS)
    assert torch.equal(paper, again)
    assert not torch.allclose(paper, other)
    assert not torch.allclose(paper, fixed)
    scorer = load_scorer("mhsc", seed=1)
    state = torch.get_rng_state()
    turned = scorer.score(images.flip(0), NO_PROMPTS)
    assert_near(turned.flip(0), paper, FLOAT32)
    assert torch.equal(torch.get_rng_state(), state)


# --- aesthetic and NSFW scores ----------------------------------------------------------------------------------------


def test_aesthetic_v1_is_linear_in_the_direction(
    load_scorer: Load, scorer_folder: Callable[[str], Any], images: torch.Tensor, embeddings: torch.Tensor
) -> None:
    state = torch.load(scorer_folder("aesthetic")["head"] / "sa_0_4_vit_l_14_linear.pth", weights_only=True)
    found = load_scorer("aesthetic").score(images, NO_PROMPTS)
    expected = unit(embeddings).double() @ state["weight"][0].double() + state["bias"].double()
    assert_near(found[:, 0], expected, FLOAT32)


def test_aesthetic_v2_is_its_stack(
    load_scorer: Load,
    scorer_folder: Callable[[str], Any],
    images: torch.Tensor,
    embeddings: torch.Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = seeded(AestheticV2(), 3)
    torch.save(head.state_dict(), tmp_path / "sac+logos+ava1-l14-linearMSE.pth")
    monkeypatch.setitem(scorer_folder("aesthetic"), "head", tmp_path)
    with torch.no_grad():
        expected = head(unit(embeddings))
    assert_near(load_scorer("aesthetic", version="v2").score(images, NO_PROMPTS), expected, FLOAT32)
    with pytest.raises(WeightsError, match=r"tensors of Linear are missing: 'bias', 'weight'; 10 .*'layers.0.bias'"):
        load_scorer("aesthetic", version="v1")


@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_nsfw_is_the_sources_network(
    form: str,
    load_scorer: Load,
    scorer_folder: Callable[[str], Any],
    images: torch.Tensor,
    embeddings: torch.Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from safetensors.torch import save_file

    head = seeded(NsfwHead())
    if form == "safetensors":
        save_file(head.state_dict(), tmp_path / "head.safetensors")
        monkeypatch.setitem(scorer_folder("laion_nsfw"), "head", tmp_path)
    scorer = load_scorer("laion_nsfw")
    assert scorer.quantities == ("nsfw",)
    with torch.no_grad():
        expected = head(unit(embeddings))
    assert_near(scorer.score(images, NO_PROMPTS), expected, FLOAT32)
    assert expected.std() > 1e-3


# --- zero-shot classification -----------------------------------------------------------------------------------------


def test_zero_shot_is_a_softmax_over_classes_and_nothing(
    load_scorer: Load, clip: Any, images: torch.Tensor, embeddings: torch.Tensor
) -> None:
    classes = [{"name": "cat"}, {"name": "dog", "prompts": ["a dog", "a puppy on grass"]}]
    scorer = load_scorer("zero_shot_clip", classes=classes, nothing=["random noise"])
    assert scorer.quantities == ("cat", "dog", "nothing")
    tokenize = open_clip.get_tokenizer("ViT-B-32", context_length=12)
    with torch.no_grad():
        texts = unit(clip.encode_text(tokenize(["a photo of a cat", "a dog", "a puppy on grass", "random noise"])))
        rows = torch.stack([texts[0], unit(texts[1] + texts[2]), texts[3]])
        expected = (clip.logit_scale.exp() * unit(embeddings) @ rows.T).softmax(dim=1)
    found = scorer.score(images, NO_PROMPTS)
    assert_near(found, expected, FLOAT32)
    assert_near(found.sum(dim=1), torch.ones(6), 1e-6)
    assert found.std(dim=0).max() > 1e-4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nothing": []}, "nothing"),
        ({"classes": [{"name": "nothing"}]}, "'nothing' is added to them"),
        ({"classes": [{"name": "cat"}, {"name": "cat"}]}, "names must differ"),
        ({"template": "a photo"}, "template must have {}"),
    ],
)
def test_zero_shot_needs_a_class_of_nothing_and_names_that_differ(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        zero_shot_clip.Config.parse({"folder": "x", "classes": [{"name": "cat"}], **settings}, where="test")
