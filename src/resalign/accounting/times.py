"""The page's section on run times: a row for each stage, device hours for each device."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from resalign.accounting.job_records import JobRecord
from resalign.analysis.measurements import Measurements


@dataclass(frozen=True)
class Timings:
    """Records of the finished jobs behind a page."""

    records: tuple[JobRecord, ...]


@dataclass(frozen=True)
class StageTime:
    """One row of the table of times; durations in seconds."""

    stage: str
    jobs: int
    attempts: int
    total: float
    start: float
    longest: float
    memory: str
    threads: str


@dataclass(frozen=True)
class Hardware:
    """One row of the table of devices."""

    device: str
    jobs: int
    held: str
    hours: str
    memory: str


@dataclass(frozen=True)
class Section:
    """Everything that the section shows.

    Attributes:
        stages: A row for each.
        whole: The row of all stages.
        hardware: A row for each device.
        jobs: Every record, the longest first.
        notes: Sentences on the total.
    """

    stages: list[StageTime]
    whole: StageTime
    hardware: list[Hardware]
    jobs: list[JobRecord]
    notes: list[str]


def section(timings: Timings, measurements: Measurements) -> Section:
    """Adds the records up.

    Args:
        timings: The jobs.
        measurements: Names of the stages.

    Raises:
        ValueError: If there is no record.
    """
    records = timings.records
    if not records:
        raise ValueError("no job's time was recorded; run one, then write the page again")
    by_device = device_hours(records)
    # A core's record is named "x86_64 core (1 of 2)": one of the machine's.
    names = {device: re.sub(r" \(1 of (\d+)\)$", r" (the machine has \1)", device) for device in by_device}
    hours = " and ".join(f"{hours:.2f} hours of one {names[device]}" for device, hours in by_device.items())
    stages = list(dict.fromkeys(record.stage for record in records))
    return Section(
        stages=[_row(measurements.title(name), [r for r in records if r.stage == name]) for name in stages],
        whole=_row("All stages", records),
        hardware=[_hardware(name, [r for r in records if r.device == name], by_device[name]) for name in by_device],
        jobs=sorted(records, key=lambda record: (-record.seconds, record.folder)),
        notes=[f"The results behind the tables took {hours}."],
    )


def device_hours(records: Iterable[JobRecord]) -> dict[str, float]:
    """Hours by device."""
    hours: Counter[str] = Counter()
    for record in records:
        hours[record.device] += record.device_hours  # type: ignore[assignment]
    return dict(sorted(hours.items()))


def duration(seconds: float) -> str:
    """Such as ``4.2 s``, ``3 min 20 s`` or ``1 h 05 min``."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _row(name: str, records: Sequence[JobRecord]) -> StageTime:
    return StageTime(
        stage=name,
        jobs=len(records),
        attempts=sum(record.attempts for record in records),
        total=sum(record.seconds for record in records),
        start=sum(record.start_seconds for record in records),
        longest=max(record.seconds for record in records),
        memory=megabytes(max(record.peak_memory_mb for record in records)),
        threads=_from_to(record.threads for record in records),
    )


def _hardware(device: str, records: Sequence[JobRecord], hours: float) -> Hardware:
    return Hardware(
        device=device,
        jobs=len(records),
        held=_from_to(record.devices for record in records),
        hours=f"{hours:.2f}",
        memory=megabytes(max(record.peak_memory_mb for record in records)),
    )


def megabytes(amount: float) -> str:
    """Such as ``1,052 MB``."""
    return f"{amount:,.0f} MB"


def _from_to(counts: Iterable[int]) -> str:
    """``2``, or ``1–4`` where they differ."""
    ordered = sorted(set(counts))
    return "–".join(str(count) for count in dict.fromkeys((ordered[0], ordered[-1])))
