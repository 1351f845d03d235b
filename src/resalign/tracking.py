"""The record of a running stage, quantities by step, which TensorBoard or Weights & Biases may follow."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resalign.errors import DataError
from resalign.files import whole

log = logging.getLogger("resalign")

Writer = Callable[[int, Mapping[str, float]], None]
TRACK, FOLDER = "RESALIGN_TRACK", "RESALIGN_TRACK_FOLDER"  # environment variables


@dataclass
class History:
    """Quantities by step, in the order they were recorded.

    Attributes:
        rows: (step, quantity, value).
        writers: Each receives a step and its quantities as they are recorded.
    """

    rows: list[tuple[int, str, float]] = field(default_factory=list)
    writers: tuple[Writer, ...] = ()

    def record(self, step: int, **quantities: float) -> None:
        """Adds the values of some quantities at a step."""
        self.rows += [(step, name, float(value)) for name, value in quantities.items()]
        for write in self.writers:
            write(step, quantities)

    def last(self, quantity: str) -> float:
        """The latest value of a quantity."""
        return next(value for _, name, value in reversed(self.rows) if name == quantity)

    @property
    def last_step(self) -> int:
        """The step of the latest record, 0 before the first."""
        return self.rows[-1][0] if self.rows else 0

    def state_dict(self) -> dict[str, list[tuple[int, str, float]]]:
        """The rows, for a saved state."""
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, list[tuple[int, str, float]]]) -> None:
        """Takes a saved state's rows in place of its own."""
        self.rows = list(state["rows"])

    def write(self, path: Path) -> None:
        """Writes ``step,quantity,value`` rows."""
        lines = ["step,quantity,value", *(f"{step},{name},{value:.9g}" for step, name, value in self.rows)]
        with whole(path) as part:
            part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def tracked(name: str) -> History:
    """A history that the trackers named in ``RESALIGN_TRACK`` follow: ``tensorboard``, ``wandb``, or both with a comma.

    Args:
        name: The run's name there, such as the folder ``results/runs/unlearn/esd/seed-0``; of an absolute path, or one
            that leads upwards, only the names of folders are kept.

    Raises:
        DataError: If a tracker is unknown, or its package is not installed.
    """
    wanted = [tracker.strip() for tracker in os.environ.get(TRACK, "").split(",") if tracker.strip()]
    if unknown := sorted({*wanted} - {*_TRACKERS}):
        raise DataError(f"{TRACK}: no tracker named {unknown[0]!r}; expected some of {sorted(_TRACKERS)}")
    path = Path(name)
    run = "/".join(part for part in path.parts if part not in (path.anchor, ".."))  # below the trackers' own folders
    return History(writers=tuple(_TRACKERS[tracker](run) for tracker in wanted))


def _tensorboard(name: str) -> Writer:
    """Writes event files below the folder of ``RESALIGN_TRACK_FOLDER``."""
    folder = Path(os.environ.get(FOLDER, "logs/tracking")) / name
    writer = _imported("tensorboard", "torch.utils.tensorboard").SummaryWriter(str(folder))

    def write(step: int, quantities: Mapping[str, float]) -> None:
        for quantity, value in quantities.items():
            writer.add_scalar(quantity, value, step)
        writer.flush()

    return write


def _wandb(name: str) -> Writer:
    """Logs to a run of the project that wandb's own variables name; ``resalign`` by default."""
    run = _imported("wandb", "wandb").init(
        project=os.environ.get("WANDB_PROJECT", "resalign"),
        name=name,
        dir=os.environ.get(FOLDER, "logs"),
        reinit="create_new",
    )
    return lambda step, quantities: run.log({**quantities, "step": step})


def _imported(package: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise DataError(f"{TRACK}: {package} is not installed; pip install {package}, or unset {TRACK}") from None


_TRACKERS: Mapping[str, Callable[[str], Writer]] = {"tensorboard": _tensorboard, "wandb": _wandb}
