"""An ONNX classifier whose answer is known: a linear map of an image's mean colour."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from resalign.config.strict import ConfigError
from resalign.scorers.onnx_classifier import Config, load, prepare
from resalign.scores import Scorer
from tests.nearness import assert_near

from .conftest import LABELS, onnx_weights

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def config(**settings: Any) -> Config:
    return Config.parse({"folder": "x", "classes": LABELS, **settings}, where="test")


def logits(images: torch.Tensor) -> torch.Tensor:
    weight, bias = (torch.from_numpy(values) for values in onnx_weights())
    return ((images / 255).mean(dim=(2, 3)) - MEAN) / STD @ weight + bias


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("softmax", lambda x: x.softmax(dim=1)), ("sigmoid", torch.sigmoid), ("none", lambda x: x)],
)
def test_scores_are_the_networks(
    activation: str,
    expected: Callable[[torch.Tensor], torch.Tensor],
    load_scorer: Callable[..., Scorer],
    images: torch.Tensor,
) -> None:
    scorer = load_scorer("onnx_classifier", activation=activation, pixels=32)
    assert scorer.quantities == LABELS
    found = scorer.score(images, [""] * 6)
    assert_near(found, expected(logits(images)), 1e-5)
    assert found.std(dim=0).max() > 1e-3


def test_a_count_of_classes_that_the_network_has_not_fails(
    scorer_folder: Callable[[str], Any], images: torch.Tensor
) -> None:
    scorer = load(config(classes=["a", "b"]), scorer_folder("onnx_classifier"), "cpu")
    with pytest.raises(ValueError, match=r"gives \(1, 4\) for an image, but 2 classes are named"):
        scorer.score(images, [""] * 6)


def test_an_unknown_output_or_file_fails(scorer_folder: Callable[[str], Any]) -> None:
    folder = scorer_folder("onnx_classifier")
    with pytest.raises(ValueError, match=r"no output named 'probabilities'; it has \['logits'\]"):
        load(config(output="probabilities"), folder, "cpu")
    with pytest.raises(FileNotFoundError, match="give the scorer's key 'file'"):
        load(config(file="other.onnx"), folder, "cpu")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"classes": []}, "classes"), ({"classes": ["a", "a"]}, "must differ"), ({"std": [1.0, 0.0, 1.0]}, "above 0")],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**settings)


def plain(**settings: Any) -> Config:
    return config(pixels=8, mean=[0.0] * 3, std=[1.0] * 3, **settings)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(("channels", "arrives"), [("rgb", (1, 0, 0)), ("bgr", (0, 0, 1))])
def test_channels_and_layout_are_the_configurations(layout: str, channels: str, arrives: tuple[int, ...]) -> None:
    red = torch.zeros((3, 20, 12), dtype=torch.uint8)
    red[0] = 255
    found = prepare(red, plain(layout=layout, channels=channels))
    assert found.dtype == np.float32
    pixel = found[:, 0, 0] if layout == "nchw" else found[0, 0]
    assert tuple(pixel) == arrives


def test_how_an_image_becomes_square() -> None:
    """Left half black, right half white, twice as wide as high."""
    image = torch.zeros((3, 16, 32), dtype=torch.uint8)
    image[..., 16:] = 255
    cropped, stretched, padded = (prepare(image, plain(resize=resize))[0] for resize in ("crop", "stretch", "pad"))
    for whole in (cropped, stretched):
        np.testing.assert_allclose(whole[:, :3], 0, atol=0.1)
        np.testing.assert_allclose(whole[:, 5:], 1, atol=0.1)
    np.testing.assert_allclose(padded[:4, 5:], 1, atol=0.1)
    assert not padded[4:].any()
    image[..., :8] = 128  # a crop loses the outer quarters, a stretch does not
    assert prepare(image, plain(resize="crop"))[0][:, 0].max() < 0.3
    assert prepare(image, plain(resize="stretch"))[0][:, 0].max() > 0.4
