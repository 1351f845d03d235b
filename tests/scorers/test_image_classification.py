"""The classifier's scores against transformers called by hand."""

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
from tests.json_files import edit_json
from tests.nearness import assert_near

from .conftest import LABELS, write_classifier


@pytest.fixture(scope="module")
def folder(scorer_folder: Callable[[str], Path | None]) -> Path:
    folder = scorer_folder("image_classification")
    assert folder is not None
    return folder


def rewritten(folder: Path, target: Path, **settings: Any) -> Path:
    """The folder with other entries in its ``config.json``; None takes one out."""
    shutil.copytree(folder, target)
    edit_json(target / "config.json", without=[k for k, v in settings.items() if v is None], **settings)
    return target


def scores(folder: Path, images: torch.Tensor, labels: tuple[str, ...] = LABELS) -> tuple[torch.Tensor, torch.Tensor]:
    """The scorer's numbers, and the network's own."""
    scorer = image_classification.load(image_classification.Config(folder="x"), folder, "cpu")
    assert scorer.quantities == labels
    with torch.no_grad():
        network = transformers.ResNetForImageClassification.from_pretrained(folder).eval()
        return scorer.score(images, [""] * 6), network(images / 255 * 2 - 1).logits


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
    found, logits = scores(mine, images)
    assert_near(found, expected(logits), 1e-4)
    assert found.std(dim=0).max() > 1e-3, "the tiny network does not look at its images; this test would be empty"
    pipeline = transformers.pipeline("image-classification", model=str(mine))
    listed = {row["label"]: row["score"] for row in pipeline(to_pil_image(images[0]), top_k=len(LABELS))}
    assert_near(found[0], torch.tensor([listed[label] for label in LABELS]), 1e-4)


def test_a_head_of_one_class_is_a_sigmoid(tmp_path: Path, images: torch.Tensor) -> None:
    """Its softmax is 1 for every image: a rate of 100 % that is nobody's."""
    found, logits = scores(write_classifier(tmp_path, labels=("seven",)), images, ("seven",))
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
