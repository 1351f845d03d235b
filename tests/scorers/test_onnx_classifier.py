"""An ONNX classifier whose answer is known: a linear map of an image's mean colour."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from resalign.config.strict import ConfigError
from resalign.scorers.onnx_classifier import Config, load, prepare
from resalign.tensors.weights import WeightsError
from tests.nearness import assert_near

from .conftest import LABELS, onnx_weights
from .onnx_file import write_onnx

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def config(**settings: Any) -> Config:
    return Config.parse({"folder": "x", "classes": LABELS, **settings}, where="test")


def logits(images: torch.Tensor) -> torch.Tensor:
    weight, bias = (torch.from_numpy(values) for values in onnx_weights())
    return ((images / 255).mean(dim=(2, 3)) - MEAN) / STD @ weight + bias


def written(folder: Path, kind: str = "float32", **graph: Any) -> Path:
    weight, bias = (values.astype(kind) for values in onnx_weights())
    write_onnx(folder / "model.onnx", weight, bias, **graph)
    return folder


def scores(folder: Path, images: torch.Tensor, **settings: Any) -> torch.Tensor:
    scorer = load(config(**{"pixels": 32, **settings}), folder, "cpu")
    assert scorer.quantities == tuple(settings.get("classes", LABELS))
    return scorer.score(images, [""] * len(images))


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert_near(found, expected, 1e-4)
    assert found.std(dim=0).max() > 1e-3, "the tiny network does not look at its images; this test would be empty"


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("softmax", lambda x: x.softmax(dim=1)), ("sigmoid", torch.sigmoid), (None, lambda x: x.softmax(dim=1))],
)
def test_logits_get_their_activation(
    activation: str | None, expected: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path, images: torch.Tensor
) -> None:
    same(scores(written(tmp_path), images, activation=activation), expected(logits(images)))


@pytest.mark.parametrize("activation", [None, "none"])
def test_a_softmax_in_the_file_gets_no_second_one(activation: str | None, tmp_path: Path, images: torch.Tensor) -> None:
    same(scores(written(tmp_path, ends_in="Softmax"), images, activation=activation), logits(images).softmax(dim=1))


def test_a_sigmoid_in_the_file_is_taken_where_it_is_said(tmp_path: Path, images: torch.Tensor) -> None:
    same(scores(written(tmp_path, ends_in="Sigmoid"), images, activation="none"), logits(images).sigmoid())


def test_logits_of_one_class_get_a_sigmoid(tmp_path: Path, images: torch.Tensor) -> None:
    weight, bias = onnx_weights()
    write_onnx(tmp_path / "model.onnx", weight[:, :1], bias[:1])
    same(scores(tmp_path, images, classes=["two"]), logits(images)[:, :1].sigmoid())
    with pytest.raises(ConfigError, match="softmax of one class is 1 for every image; a sigmoid is meant"):
        config(classes=["two"], activation="softmax")


@pytest.mark.parametrize(
    ("ends_in", "activation", "message"),
    [
        (
            "Softmax",
            "softmax",
            "are probabilities already, so that softmax would be a second one.* 'activation' to none",
        ),
        ("Softmax", "sigmoid", "are probabilities already, so that sigmoid would be a second one"),
        ("Sigmoid", "sigmoid", "seem to be probabilities of their own, so that sigmoid would be a second one"),
        ("Sigmoid", None, "seem to be probabilities of their own, so that an activation would be a second one"),
        ("", "none", r"gives no probabilities, its numbers lie between -.*'activation' out, or set it to softmax"),
    ],
)
def test_an_activation_that_the_numbers_contradict_is_refused(
    ends_in: str, activation: str | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=message):
        load(config(activation=activation, pixels=32), written(tmp_path, ends_in=ends_in), "cpu")


def test_an_input_in_half_precision_is_obeyed(tmp_path: Path, images: torch.Tensor) -> None:
    expected = logits(images).softmax(dim=1)
    assert_near(scores(written(tmp_path, "float16"), images), expected, 5e-3)


@pytest.mark.parametrize("batch", [1, 4, 6, 9])
def test_a_fixed_batch_is_obeyed(batch: int, tmp_path: Path, images: torch.Tensor) -> None:
    folder = written(tmp_path, shape=(batch, 3, 32, 32))
    same(scores(folder, images), logits(images).softmax(dim=1))
    assert scores(folder, images[:1]).shape == (1, 4)


def test_channels_last_are_obeyed(tmp_path: Path, images: torch.Tensor) -> None:
    folder = written(tmp_path, shape=(4, 32, 32, 3), channels_last=True)
    same(scores(folder, images, layout="nhwc"), logits(images).softmax(dim=1))


def test_a_network_of_grey_images_is_refused(tmp_path: Path) -> None:
    write_onnx(tmp_path / "model.onnx", onnx_weights()[0][:1], onnx_weights()[1], shape=(1, 1, 32, 32))
    with pytest.raises(WeightsError, match="has 1 channels by layout nchw"):
        load(config(), tmp_path, "cpu")


def test_the_edge_is_the_files(tmp_path: Path, images: torch.Tensor) -> None:
    folder = written(tmp_path, shape=("batch", 3, 32, 32))
    same(scores(folder, images, pixels=None), logits(images).softmax(dim=1))


def test_weights_beside_the_file_are_read(tmp_path: Path, images: torch.Tensor) -> None:
    weight, _ = onnx_weights()
    (tmp_path / "model.onnx.data").write_bytes(weight.astype("<f4").tobytes())
    same(scores(written(tmp_path, weight_file="model.onnx.data"), images), logits(images).softmax(dim=1))


@pytest.mark.parametrize("place", ["missing.data", "../outside.data", "linked.data", "linked/outside.data"])
def test_weights_that_are_missing_or_outside_are_named(place: str, tmp_path: Path) -> None:
    (tmp_path / "outside.data").write_bytes(onnx_weights()[0].astype("<f4").tobytes())
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "linked.data").symlink_to(tmp_path / "outside.data")
    (tmp_path / "folder" / "linked").symlink_to(tmp_path)
    with pytest.raises(WeightsError, match=rf"model\.onnx: onnxruntime cannot run it: .*{place}.*export it again"):
        load(config(pixels=32), written(tmp_path / "folder", weight_file=place), "cpu")


def test_weights_at_the_root_are_refused(tmp_path: Path) -> None:
    (tmp_path / "outside.data").write_bytes(onnx_weights()[0].astype("<f4").tobytes())
    with pytest.raises(WeightsError, match=r"model\.onnx: onnxruntime cannot run it: .*Absolute path not allowed"):
        load(config(pixels=32), written(tmp_path, weight_file=str(tmp_path / "outside.data")), "cpu")


@pytest.mark.parametrize(("domain", "operation"), [("my.own", "Act"), ("ai.onnx.contrib", "PyOp")])
def test_operations_of_others_are_refused(domain: str, operation: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=rf"{domain}:{operation}.* is not a registered .*of ONNX's own operations"):
        load(config(pixels=32), written(tmp_path, ends_in=operation, domain=domain), "cpu")


def test_another_networks_context_is_refused(tmp_path: Path) -> None:
    """A file that has an accelerator's library read another file."""
    with pytest.raises(WeightsError, match="EPContext.*export it again"):
        load(config(pixels=32), written(tmp_path, ends_in="EPContext", domain="com.microsoft"), "cpu")


def test_a_file_does_not_configure_its_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment allows it, it would write files wherever it says."""
    monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", "1")
    monkeypatch.chdir(tmp_path)
    said = {"session_options": {"enable_profiling": 1, "optimized_model_filepath": str(tmp_path / "elsewhere")}}
    load(config(pixels=32), written(tmp_path, metadata=json.dumps(said)), "cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(
    ("graph", "settings", "message"),
    [
        ({"inputs": ("images", "size")}, {}, r"has the inputs \['images', 'size'\]; export it with one, of images"),
        ({"shape": (1, 3, 64, 64)}, {}, r"'images' of shape \[1, 3, 64, 64\] takes no square of 32 pixels"),
        ({"shape": (1, 3, 64, 48)}, {"pixels": None}, r"takes no square of \[48, 64\] pixels"),
        ({}, {"pixels": None}, "'images' takes any size; give the scorer's key 'pixels'"),
        (
            {"shape": (1, 32, 32, 3), "channels_last": True},
            {},
            "has 32 channels by layout nchw; three are given: set the scorer's key 'layout'",
        ),
        ({}, {"classes": ["a", "b"]}, r"gives \(1, 4\) for 1 image\(s\), but 2 classes are named"),
        ({}, {"output": "probabilities"}, r"no output named 'probabilities'; it has \['logits'\]"),
        ({}, {"file": "other.onnx"}, "other.onnx: no such file; give the scorer's key 'file'"),
    ],
    ids=["second input", "other edge", "no square", "any edge", "layout", "classes", "output", "file"],
)
def test_what_does_not_fit_is_refused_when_it_is_loaded(
    graph: dict[str, Any], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=message):
        load(config(**{"pixels": 32, **settings}), written(tmp_path, **graph), "cpu")


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"<html>not found</html>")
    with pytest.raises(WeightsError, match=r"model\.onnx: onnxruntime cannot run it: .*PROTOBUF"):
        load(config(pixels=32), tmp_path, "cpu")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"classes": []}, "classes"), ({"classes": ["a", "a"]}, "must differ"), ({"std": [1.0, 0.0, 1.0]}, "above 0")],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**settings)


def plain(**settings: Any) -> Config:
    return config(mean=[0.0] * 3, std=[1.0] * 3, **settings)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(("channels", "arrives"), [("rgb", (1, 0, 0)), ("bgr", (0, 0, 1))])
def test_channels_and_layout_are_the_configurations(layout: str, channels: str, arrives: tuple[int, ...]) -> None:
    red = torch.zeros((3, 20, 12), dtype=torch.uint8)
    red[0] = 255
    found = prepare(red, plain(layout=layout, channels=channels), 8)
    assert found.dtype == np.float32
    pixel = found[:, 0, 0] if layout == "nchw" else found[0, 0]
    assert tuple(pixel) == arrives


def test_how_an_image_becomes_square() -> None:
    """Left half black, right half white, twice as wide as high."""
    image = torch.zeros((3, 16, 32), dtype=torch.uint8)
    image[..., 16:] = 255
    cropped, stretched, padded = (prepare(image, plain(resize=resize), 8)[0] for resize in ("crop", "stretch", "pad"))
    for whole in (cropped, stretched):
        np.testing.assert_allclose(whole[:, :3], 0, atol=0.1)
        np.testing.assert_allclose(whole[:, 5:], 1, atol=0.1)
    np.testing.assert_allclose(padded[:4, 5:], 1, atol=0.1)
    assert not padded[4:].any()
    image[..., :8] = 128  # a crop loses the outer quarters, a stretch does not
    assert prepare(image, plain(resize="crop"), 8)[0][:, 0].max() < 0.3
    assert prepare(image, plain(resize="stretch"), 8)[0][:, 0].max() > 0.4
