"""The classifier's scores against transformers called by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from resalign.lazy import transformers
from resalign.scorers import image_classification
from tests.nearness import assert_near

from .conftest import LABELS


@pytest.fixture(scope="module")
def folder(scorer_folder: Callable[[str], Path | None]) -> Path:
    folder = scorer_folder("image_classification")
    assert folder is not None
    return folder


def test_quantities_are_the_classes_in_their_order(folder: Path) -> None:
    scorer = image_classification.load(image_classification.Config(folder="x"), folder, "cpu")
    assert scorer.quantities == LABELS


def test_scores_are_probabilities(folder: Path, images: torch.Tensor) -> None:
    scores = image_classification.load(image_classification.Config(folder="x"), folder, "cpu").score(images, [""] * 6)
    assert_near(scores.sum(dim=1), torch.ones(6), 1e-6)
    assert scores.std(dim=0).max() > 1e-3, "the tiny network does not look at its images; this test would be empty"
    model = transformers.ResNetForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(images / 255 * 2 - 1).logits.softmax(dim=1)
    assert_near(scores, expected, 1e-5)


def test_prompts_play_no_part(folder: Path, images: torch.Tensor) -> None:
    scorer = image_classification.load(image_classification.Config(folder="x"), folder, "cpu")
    assert torch.equal(scorer.score(images, ["a"] * 6), scorer.score(images, ["b"] * 6))
