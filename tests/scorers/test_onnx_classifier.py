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
    channels = 1 if graph.get("shape") == (1, 1, 32, 32) else 3
    write_onnx(folder / "model.onnx", weight[:channels], bias, **graph)
    return folder


def scores(folder: Path, images: torch.Tensor, **settings: Any) -> torch.Tensor:
    scorer = load(config(**{"pixels": 32, **settings}), folder, "cpu")
    assert scorer.quantities == tuple(settings.get("classes", LABELS))
    return scorer.score(images, [""] * len(images))


def softmax(values: torch.Tensor) -> torch.Tensor:
    return values.softmax(dim=1)


OPEN, FIXED = ("batch", 3, 32, 32), [(batch, 3, 32, 32) for batch in (1, 4, 6, 9)]


@pytest.mark.parametrize(
    ("graph", "settings", "expected"),
    [
        # Logits get their activation, probabilities no second one.
        ({}, {"activation": "softmax"}, softmax),
        ({}, {"activation": "sigmoid"}, torch.sigmoid),
        ({}, {}, softmax),
        ({"ends_in": "Softmax"}, {}, softmax),
        ({"ends_in": "Softmax"}, {"activation": "none"}, softmax),
        ({"ends_in": "Sigmoid"}, {"activation": "none"}, torch.sigmoid),
        # What the file says of its input is obeyed.
        ({"kind": "float16"}, {}, softmax),
        *(({"shape": shape}, {}, softmax) for shape in FIXED),
        ({"shape": (4, 32, 32, 3), "channels_last": True}, {"layout": "nhwc"}, softmax),
        ({"shape": OPEN}, {"pixels": None}, softmax),
        ({"weight_file": "model.onnx.data"}, {}, softmax),
    ],
)
def test_a_network_is_run_as_it_is_meant(
    graph: dict[str, Any],
    settings: dict[str, Any],
    expected: Callable[[torch.Tensor], torch.Tensor],
    tmp_path: Path,
    images: torch.Tensor,
) -> None:
    (tmp_path / "model.onnx.data").write_bytes(onnx_weights()[0].astype("<f4").tobytes())
    folder = written(tmp_path, **graph)
    found = scores(folder, images, **settings)
    assert_near(found, expected(logits(images)), 5e-3 if graph.get("kind") else 1e-4)
    assert found.std(dim=0).max() > 1e-3, "the tiny network does not look at its images; this test would be empty"
    assert scores(folder, images[:1], **settings).shape == (1, 4)


def test_logits_of_one_class_get_a_sigmoid(tmp_path: Path, images: torch.Tensor) -> None:
    weight, bias = onnx_weights()
    write_onnx(tmp_path / "model.onnx", weight[:, :1], bias[:1])
    assert_near(scores(tmp_path, images, classes=["two"]), logits(images)[:, :1].sigmoid(), 1e-4)


def test_a_file_does_not_configure_its_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment allows it, it would write files wherever it says."""
    monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", "1")
    monkeypatch.chdir(tmp_path)
    said = {"session_options": {"enable_profiling": 1, "optimized_model_filepath": str(tmp_path / "elsewhere")}}
    load(config(pixels=32), written(tmp_path, metadata=json.dumps(said)), "cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


CANNOT_RUN = r"model\.onnx: onnxruntime cannot run it: .*"


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
            "has 32 channels by layout nchw; three are given",
        ),
        ({"shape": (1, 1, 32, 32)}, {}, "has 1 channels by layout nchw"),
        ({}, {"classes": ["a", "b"]}, r"gives \(1, 4\) for 1 image\(s\), but 2 classes are named"),
        ({}, {"output": "probabilities"}, r"no output named 'probabilities'; it has \['logits'\]"),
        ({}, {"file": "other.onnx"}, "other.onnx: no such file; give the scorer's key 'file'"),
        # An activation that the numbers contradict.
        ({"ends_in": "Softmax"}, {"activation": "softmax"}, "probabilities already, so that softmax would .* to none"),
        ({"ends_in": "Softmax"}, {"activation": "sigmoid"}, "are probabilities already, so that sigmoid would be a"),
        ({"ends_in": "Sigmoid"}, {"activation": "sigmoid"}, "seem to be probabilities of their own, so that sigmoid"),
        ({"ends_in": "Sigmoid"}, {}, "seem to be probabilities of their own, so that an activation would be a second"),
        ({}, {"activation": "none"}, "gives no probabilities, its numbers lie between -.*'activation' out, or set it"),
        # Operations of others, and an accelerator's library that would read another file.
        ({"ends_in": "Act", "domain": "my.own"}, {}, "my.own:Act.* is not a registered .*of ONNX's own operations"),
        ({"ends_in": "PyOp", "domain": "ai.onnx.contrib"}, {}, "ai.onnx.contrib:PyOp.* is not a registered"),
        ({"ends_in": "EPContext", "domain": "com.microsoft"}, {}, "EPContext.*export it again"),
        # Weights that are missing, or outside the folder.
        *(
            ({"weight_file": place}, {}, f"{CANNOT_RUN}{place}.*export it again")
            for place in ("missing.data", "../outside.data", "linked.data", "linked/outside.data")
        ),
        ({"weight_file": "/outside.data"}, {}, f"{CANNOT_RUN}Absolute path not allowed"),
        (None, {}, f"{CANNOT_RUN}PROTOBUF"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_when_it_is_loaded(
    graph: dict[str, Any] | None, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "outside.data").write_bytes(onnx_weights()[0].astype("<f4").tobytes())
    (folder / "linked.data").symlink_to(tmp_path / "outside.data")
    (folder / "linked").symlink_to(tmp_path)
    if graph is None:
        (folder / "model.onnx").write_bytes(b"<html>not found</html>")
    else:
        written(folder, **graph)
    with pytest.raises(WeightsError, match=message):
        load(config(**{"pixels": 32, **settings}), folder, "cpu")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": []}, "classes"),
        ({"classes": ["a", "a"]}, "must differ"),
        ({"std": [1.0, 0.0, 1.0]}, "above 0"),
        ({"classes": ["a"], "activation": "softmax"}, "softmax of one class is 1 for every image; a sigmoid is meant"),
    ],
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
