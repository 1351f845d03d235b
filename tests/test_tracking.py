"""Trackers that follow a history: stand-in modules take the places of TensorBoard and Weights & Biases."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from resalign.errors import DataError
from resalign.tracking import History, tracked


def record(history: History) -> History:
    history.record(0, loss=1.0, grad_norm=2.0)
    history.record(1, loss=0.5)
    return history


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the stand-ins are given, in order."""
    found: list[Any] = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            found.append(folder)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            found.append((name, value, step))

        def flush(self) -> None:
            """Nothing is kept back."""

    run = SimpleNamespace(log=lambda values: found.append(values))
    wandb = SimpleNamespace(init=lambda **settings: found.append((settings["project"], settings["name"])) or run)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=SummaryWriter))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    return found


def test_trackers_receive_what_is_recorded_and_change_nothing(seen: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = record(tracked("results/runs/esd"))
    assert seen == []
    monkeypatch.setenv("RESALIGN_TRACK", "tensorboard, wandb")
    monkeypatch.setenv("RESALIGN_TRACK_FOLDER", "somewhere")
    followed = record(tracked("results/runs/esd"))
    assert followed.rows == plain.rows
    assert seen == [
        "somewhere/results/runs/esd",
        ("resalign", "results/runs/esd"),
        ("loss", 1.0, 0),
        ("grad_norm", 2.0, 0),
        {"loss": 1.0, "grad_norm": 2.0, "step": 0},
        ("loss", 0.5, 1),
        {"loss": 0.5, "step": 1},
    ]


@pytest.mark.parametrize("output", ["/abs/out", "../abs/out"])
def test_trackers_write_nothing_into_the_output_folder(
    output: str, seen: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESALIGN_TRACK", "tensorboard")
    tracked(output)
    assert seen == ["logs/tracking/abs/out"]


@pytest.mark.parametrize(
    ("name", "module", "message"),
    [
        ("mlflow", None, r"no tracker named 'mlflow'; expected some of \['tensorboard', 'wandb'\]"),
        ("wandb", "wandb", "wandb is not installed; pip install wandb"),
        ("tensorboard", "torch.utils.tensorboard", "tensorboard is not installed; pip install tensorboard"),
    ],
)
def test_a_tracker_that_is_not_there_is_named(
    name: str, module: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESALIGN_TRACK", name)
    if module:
        monkeypatch.setitem(sys.modules, module, None)  # importing it fails
    with pytest.raises(DataError, match=message):
        tracked("run")
