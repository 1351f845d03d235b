"""The classifier's scores against transformers called by hand."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.transforms.functional import to_pil_image

from resalign.lazy import transformers
from resalign.scorers import image_classification
from resalign.tensors.weights import WeightsError
from tests.nearness import assert_near

from .conftest import LABELS, write_classifier


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


def rewritten(folder: Path, target: Path, **settings: Any) -> Path:
    """The folder with other entries in its ``config.json``; None takes one out."""
    shutil.copytree(folder, target)
    values = {**json.loads((target / "config.json").read_text()), **settings}
    (target / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
    return target


@pytest.mark.parametrize(
    ("problem_type", "expected"),
    [
        ("multi_label_classification", torch.sigmoid),
        ("single_label_classification", lambda x: x.softmax(dim=1)),
        (None, lambda x: x.softmax(dim=1)),
        ("regression", lambda x: x),
    ],
)
def test_what_the_numbers_mean_is_what_the_librarys_pipeline_says(
    problem_type: str | None,
    expected: Callable[[torch.Tensor], torch.Tensor],
    folder: Path,
    images: torch.Tensor,
    tmp_path: Path,
) -> None:
    mine = rewritten(folder, tmp_path / "net", problem_type=problem_type)
    found = image_classification.load(image_classification.Config(folder="x"), mine, "cpu").score(images, [""] * 6)
    with torch.no_grad():
        logits = transformers.ResNetForImageClassification.from_pretrained(mine).eval()(images / 255 * 2 - 1).logits
    assert_near(found, expected(logits), 1e-4)
    pipeline = transformers.pipeline("image-classification", model=str(mine))
    listed = {row["label"]: row["score"] for row in pipeline(to_pil_image(images[0]), top_k=len(LABELS))}
    assert_near(found[0], torch.tensor([listed[label] for label in LABELS]), 1e-4)


def test_a_head_of_one_class_is_a_sigmoid(tmp_path: Path, images: torch.Tensor) -> None:
    """Its softmax is 1 for every image: a rate of 100 % that is nobody's."""
    write_classifier(tmp_path, labels=("seven",))
    found = image_classification.load(image_classification.Config(folder="x"), tmp_path, "cpu").score(images, [""] * 6)
    with torch.no_grad():
        logits = transformers.ResNetForImageClassification.from_pretrained(tmp_path).eval()(images / 255 * 2 - 1).logits
    assert_near(found, logits.sigmoid(), 1e-4)
    assert found.max() < 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            {"0": "a", "1": "b", "2": "c", "4": "d"},
            r"config\.json: id2label numbers its classes \[0, 1, 2, 4\]; .* to 3",
        ),
        ({"0": "a", "1": "b", "2": "a", "3": "c"}, r"config\.json: id2label gives 2 classes the name 'a'; name each"),
    ],
    ids=["a gap", "a name twice"],
)
def test_class_names_that_cannot_be_told_apart_are_refused(
    names: dict[str, str], message: str, folder: Path, tmp_path: Path
) -> None:
    mine = rewritten(folder, tmp_path / "net", id2label=names, label2id=None)
    with pytest.raises(WeightsError, match=message):
        image_classification.load(image_classification.Config(folder="x"), mine, "cpu")
