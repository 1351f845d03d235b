"""What one step, image or asset takes (config/rates.csv), and by what GPUs differ (config/gpus.csv)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resalign.config.passes import Passes
from resalign.config.strict import ConfigError, nearest

RATES, GPUS = Path("config/rates.csv"), Path("config/gpus.csv")
ESTIMATED = "estimated: "
# Rows by whose seconds work is estimated that has none of its own.
GRADIENT, FORWARD = ("denoiser", "gradient pass"), ("denoiser", "forward pass")

Rates = dict[tuple[str, str], "Rate"]


@dataclass(frozen=True)
class Rate:
    """One row of ``config/rates.csv``.

    Attributes:
        seconds: Device seconds of one step, image or asset; None where they are not known.
        passes: Of the denoiser in it; None where they were not counted.
        start_seconds: Device seconds of a job besides these.
        size_bytes: One state of the model, one asset or one image; None where it is not known.
        device: What the seconds are of.
        source: Where they were measured, or, after ``estimated:``, how they were reckoned.
    """

    seconds: float | None = None
    passes: Passes | None = None
    start_seconds: float = 0.0
    size_bytes: float | None = None
    device: str = ""
    source: str = ""


@dataclass(frozen=True)
class Gpu:
    """One row of ``config/gpus.csv``.

    Attributes:
        name: As rates name it.
        bandwidth: Of its memory, GB/s.
        float32: TFLOP/s of its plain units.
        source: The maker's publication.
    """

    name: str
    bandwidth: float
    float32: float
    source: str


def read_rates(path: Path, model: str) -> Rates:
    """The rates of one base model, by stage and member.

    Raises:
        ValueError: If the file lacks a column, or a number is none.
    """
    try:
        return {(row["stage"], row["member"]): _rate(row) for row in _rows(path) if row["model"] == model}
    except (KeyError, TypeError, ValueError) as error:
        raise _no_table(path, error) from None


def rate_of(rates: Rates, stage: str, member: str) -> Rate:
    """The row of a member, or of its whole stage; an empty one where there is neither."""
    return rates.get((stage, member)) or rates.get((stage, "*")) or Rate()


def seconds_of(rates: Rates, passes: Passes | None) -> float | None:
    """Seconds of passes through the denoiser; None where the passes, or the seconds of one, are not known."""
    gradient, forward = (rates.get(key, Rate()).seconds for key in (GRADIENT, FORWARD))
    if passes is None or gradient is None or forward is None:
        return None
    return passes.gradient * gradient + passes.forward * forward


def read_gpus(path: Path = GPUS) -> dict[str, Gpu]:
    """GPUs by the names that a person types.

    Raises:
        ValueError: If the file lacks a column, or a number is none.
    """
    try:
        return {
            row["gpu"]: Gpu(row["name"], float(row["gb_a_second"]), float(row["float32_tflops"]), row["source"])
            for row in _rows(path)
        }
    except (KeyError, TypeError, ValueError) as error:
        raise _no_table(path, error) from None


def chosen(gpus: dict[str, Gpu], name: str) -> Gpu:
    """The GPU that a person types.

    Raises:
        ConfigError: If the file has none of that name.
    """
    if name not in gpus:
        raise ConfigError(f"--gpu {name}: not in {GPUS}{nearest(name, gpus)}")
    return gpus[name]


def _rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _rate(row: dict[str, Any]) -> Rate:
    keys = ("seconds", "gradient_passes", "forward_passes", "start_seconds", "megabytes")
    seconds, gradient, forward, start_seconds, megabytes = (float(row[key]) if row[key] else None for key in keys)
    passes = None if gradient is None and forward is None else Passes(gradient or 0.0, forward or 0.0)
    size_bytes = None if megabytes is None else megabytes * 1e6
    return Rate(seconds, passes, start_seconds or 0.0, size_bytes, row["device"], row["source"])


def _no_table(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: is no such table ({error}); restore it from git")
