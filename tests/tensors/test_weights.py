"""Weight files: whole, fitting and finite, or refused by name."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from resalign.tensors.weights import load_weights, save_weights
from tests.refusals import told

EXPECTED = {"unet.a": torch.zeros(2, 3), "unet.b": torch.zeros(4)}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_weights(path, {name: tensor + 1 for name, tensor in EXPECTED.items()})
    return path


def test_whole_weights_are_read(weights: Path) -> None:
    found = load_weights(weights, EXPECTED)
    assert {name: tensor.unique().tolist() for name, tensor in found.items()} == {"unet.a": [1.0], "unet.b": [1.0]}


@pytest.mark.parametrize("length", [0, 4, 40, -1])
def test_truncated_weights(weights: Path, length: int) -> None:
    weights.write_bytes(weights.read_bytes()[:length])
    told(lambda: load_weights(weights, EXPECTED), str(weights), "truncated", "fetch or make it again")


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({"unet.a": torch.zeros(3, 2)}, ["'unet.a' has shape (3, 2), the model expects (2, 3)"]),
        ({"unet.c": torch.zeros(1)}, ["no tensor named 'unet.c'", "another architecture"]),
        ({"unet.b": torch.tensor([0.0, 1.0, float("nan"), 2.0])}, ["'unet.b'", "not finite"]),
    ],
    ids=["shape", "name", "NaN"],
)
def test_weights_that_do_not_fit(weights: Path, tensors: dict[str, torch.Tensor], expected: list[str]) -> None:
    save_weights(weights, tensors)
    told(lambda: load_weights(weights, EXPECTED), str(weights), *expected)


def test_no_weights_at_all(weights: Path) -> None:
    told(lambda: save_weights(weights, {}), str(weights), "no tensors to write", "more steps")
    weights.unlink()
    told(lambda: load_weights(weights, EXPECTED), str(weights), "no such weight file", "make it")


def test_pickled_weights(weights: Path) -> None:
    pickled = weights.with_suffix(".pt")
    torch.save(EXPECTED, pickled)
    told(lambda: load_weights(pickled, EXPECTED), str(pickled), "expected a .safetensors", "convert")
    pickled.rename(weights)
    told(lambda: load_weights(weights, EXPECTED), str(weights), "renamed pickle")


def test_a_killed_save_leaves_no_half_of_a_file(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = weights.read_bytes()

    def killed(tensors: Any, path: Path, **_: Any) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.torch, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        save_weights(weights, EXPECTED)
    assert weights.read_bytes() == before
