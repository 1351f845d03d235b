"""Rates: device seconds and bytes of one unit of work, as measured, and which jobs they hold for.

A rate holds for a job of the same stage, member and model whose work for one unit is the same: every setting that is a
whole number, a choice or a switch is equal. A real number (a learning rate, a weight, γ) changes values and not the
work, unless it is 0; a tolerance, which tells when to stop, is equal too. Nothing is carried over from one model,
device or number of threads to another: what was not measured has no rate.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from resalign.accounting.planned_jobs import PlannedJob
from resalign.config.plan import digest
from resalign.files import whole

# Of a member's own settings: its name and seed change no amount of work, and its steps are the unit.
_NO_WORK = {"name", "seed", "steps"}


@dataclass(frozen=True)
class Work:
    """What a rate is a rate of.

    Attributes:
        stage: As in :class:`resalign.accounting.planned_jobs.PlannedJob`.
        member: What works: a method, an attack, the scorers, an asset.
        model: Folder name of the model, its hash included; empty where there is none.
        work: Hash of every setting that determines the work of one unit.
        unit: ``step``, ``image`` or ``job``.
    """

    stage: str
    member: str
    model: str
    work: str
    unit: str


@dataclass(frozen=True)
class Rate:
    """One row of ``config/rates.csv``.

    Attributes:
        stage, member, model, work, unit: See :class:`Work`.
        device_seconds: Of one unit: own seconds, times the GPUs or cores held; the median over jobs.
        start_device_seconds: Of a job, outside its own work: interpreter and imports.
        bytes: Disk that a job takes, or where the unit is an image each image.
        jobs: How many were measured.
        device: What the seconds are seconds of.
        date: Day of the last of them.
        source: Where a reader finds them: an entry of dev/LOG.md, or a table in the repository.
    """

    stage: str
    member: str
    model: str
    work: str
    unit: str
    device_seconds: float
    start_device_seconds: float
    bytes: float
    jobs: int
    device: str
    date: str
    source: str

    @property
    def of(self) -> Work:
        """What it is a rate of."""
        return Work(self.stage, self.member, self.model, self.work, self.unit)

    def seconds(self, units: int) -> float:
        """Device seconds of a job, its start included."""
        return self.start_device_seconds + units * self.device_seconds

    def size_bytes(self, units: int) -> float:
        """Bytes that a job leaves."""
        return self.bytes * (units if self.unit == "image" else 1)


COLUMNS = tuple(field.name for field in fields(Rate))
_NUMBERS = ("device_seconds", "start_device_seconds", "bytes")


def work_of(planned: PlannedJob) -> Work:
    """What a planned job's rate is a rate of."""
    stage, job, member, unit = planned.stage, planned.job, planned.label, "job"
    settings: Any = job
    if stage in ("unlearn", "attack"):
        own = job["method" if stage == "unlearn" else "attack"]
        member, unit = own["name"], "step" if "steps" in own else "job"
        how = {name: job.get(name) for name in ("precision", "gradient_checkpointing")}
        settings = [_without(own), job["pixels"], job.get("micro_batch_size"), *_without(how).items()]
    elif stage == "sample":
        # Without guidance a step asks the network for half as much.
        guided = job["sampling"]["guidance_scale"] > 1
        member, settings, unit = "images", [_without(job["sampling"]), guided], "image"
    elif stage == "score":
        scorers = [[scorer["settings"], _names(scorer["folder"])] for scorer in job["scorers"].values()]
        settings = [sorted(digest(scorer) for scorer in scorers), job["batch_size"]]
        if planned.label == "reference":  # real images, of which each set has its own number
            settings.append(PurePosixPath(job["images"]).parts[-3:])
        else:
            member, unit = "+".join(sorted({settings["name"] for settings, _ in scorers})), "image"
    elif stage in ("report", "study") and job:
        members = {label: attack["name"] for label, attack in job["config"]["attacks"].items()}
        rows = sorted(
            [members.get(row["attack"], row["attack"]), row["dataset"], len(row["seeds"])] for row in job["rows"]
        )
        settings = [rows, dict(job["metrics"]), job["config"]["tiers"][job["tier"]]["prompts"]]
    elif stage == "second_order":
        settings = [job["audit"], job["pixels"]]
    where = "GPU" if planned.wants_gpu else planned.threads
    return Work(stage, member, _name(planned.model), digest([_work(settings), where]), unit)


def _name(folder: str) -> str:
    return PurePosixPath(folder).name


def _names(folder: str | dict[str, str] | None) -> str | dict[str, str]:
    """Of what a scorer loads: one folder, several by key, or none."""
    return {key: _name(path) for key, path in folder.items()} if isinstance(folder, dict) else _name(folder or "")


def _without(settings: dict[str, Any]) -> dict[str, Any]:
    """What changes the work; a rate that was measured before there was another precision still holds."""
    usual = {"precision": "float32", "gradient_checkpointing": None}
    return {
        name: value
        for name, value in settings.items()
        if name not in _NO_WORK and (name not in usual or value != usual[name])
    }


def _work(value: Any, key: str = "") -> Any:
    """A setting without what does not change the work: a real number's size."""
    if isinstance(value, dict):
        return {name: _work(member, name) for name, member in value.items()}
    if isinstance(value, list | tuple):
        members = [_work(member, key) for member in value]
        return [member for member in members if member != "real"] + ["real"] * ("real" in members)
    return "real" if isinstance(value, float) and value != 0 and not key.endswith("tol") else value


def newest(rates: Iterable[Rate]) -> dict[Work, Rate]:
    """The rate that holds for each kind of work: of several devices' the one that was measured last."""
    return {rate.of: rate for rate in sorted(rates, key=lambda rate: rate.date)}


def read_rates(path: Path) -> list[Rate]:
    """The committed rates.

    Raises:
        ValueError: If the file's columns are not :data:`COLUMNS`, or a number is none.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if tuple(rows.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path}: columns {rows.fieldnames}; expected {list(COLUMNS)}")
        return [_rate(row) for row in rows]


def _rate(row: dict[str, Any]) -> Rate:
    return Rate(**{**row, **{name: float(row[name]) for name in _NUMBERS}, "jobs": int(row["jobs"])})


def write_rates(path: Path, rates: Iterable[Rate]) -> None:
    """Writes rows, sorted; of the same work on the same device the last stays."""
    kept = {(rate.of, rate.device): rate for rate in rates}
    with whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for rate in sorted(kept.values(), key=lambda rate: [getattr(rate, name) for name in COLUMNS]):
            writer.writerow(
                f"{getattr(rate, name):.4g}" if name in _NUMBERS[:2] else getattr(rate, name) for name in COLUMNS
            )
