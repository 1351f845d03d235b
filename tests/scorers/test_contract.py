"""What every scorer must do. A new file in ``src/resalign/scorers`` is held to it unasked."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from resalign.config import registry
from resalign.scorers._scorer import Scorer
from tests.example_config import smallest
from tests.nearness import assert_near

from .conftest import scorer_settings

PROMPTS = ["a red two", "a blue three", "seven", "", "nothing at all", "a red two"]


# Those whose network cannot be made tiny.
SLOW = ("inception",)
MEMBERS = [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in registry.members("scorers")]


@pytest.fixture(scope="module", params=MEMBERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def scorer(name: str, load_scorer: Callable[..., Scorer]) -> Scorer:
    scorer = load_scorer(name)
    assert isinstance(scorer, Scorer)
    return scorer


def test_signature(name: str) -> None:
    assert list(inspect.signature(registry.member("scorers", name).load).parameters) == ["config", "folder", "device"]


def test_a_row_an_image_and_a_column_a_quantity(scorer: Scorer, images: torch.Tensor) -> None:
    scores = scorer.score(images, PROMPTS)
    assert scores.shape == (len(images), len(scorer.quantities))
    assert len(set(scorer.quantities)) == len(scorer.quantities)
    assert torch.isfinite(scores).all()
    assert not scores.requires_grad
    assert scores.device.type == "cpu"


def test_same_bits_again_and_images_left_alone(scorer: Scorer, images: torch.Tensor) -> None:
    before = images.clone()
    assert torch.equal(scorer.score(images, PROMPTS), scorer.score(images, PROMPTS))
    assert torch.equal(images, before)


def test_company_moves_no_score(scorer: Scorer, images: torch.Tensor) -> None:
    together = scorer.score(images, PROMPTS)
    alone = torch.cat([scorer.score(images[i, None], [PROMPTS[i]]) for i in range(len(images))])
    assert_near(alone, together, 1e-4)  # float32 sums in another order


def test_numbers_that_the_configuration_tells_are_those_of_the_network(
    name: str, scorer: Scorer, scorer_folder: Callable[[str], Any]
) -> None:
    module = registry.member("scorers", name)
    if hasattr(module, "quantities"):
        told = module.quantities(smallest(module.Config, **scorer_settings(name, scorer_folder(name))))
        assert told == scorer.quantities
