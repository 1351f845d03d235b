"""The page's section on time: each stage's hours, and where the cores' time went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resalign.report.core_time import core_time
from resalign.report.efficiency import DEFINITION, device_hours, in_words
from resalign.report.job_records import JobRecord
from resalign.report.measurements import Measurements


@dataclass(frozen=True)
class Timings:
    """The jobs behind a page.

    Attributes:
        records: Those that have finished.
        run_started_at: When the run began that writes the page; None where it is written by hand.
    """

    records: tuple[JobRecord, ...]
    run_started_at: float | None = None


@dataclass(frozen=True)
class StageTime:
    """One row of the table of times."""

    stage: str
    jobs: int
    attempts: int
    total: str
    start: str
    longest: str
    memory: str
    threads: str


@dataclass(frozen=True)
class Section:
    """Everything that the section shows.

    Attributes:
        stages: A row for each, then one for all.
        kinds: Name, duration and share of each kind of core time.
        notes: What the numbers are.
    """

    stages: list[StageTime]
    kinds: list[tuple[str, str, str]]
    notes: list[str]


def section(timings: Timings, measurements: Measurements) -> Section:
    """What the page says about time.

    Args:
        timings: The jobs.
        measurements: Names of the stages.
    """
    records = timings.records
    found = core_time(records, run_started_at=timings.run_started_at)
    hours = " and ".join(f"{hours:.2f} hours of {device}" for device, hours in device_hours(records).items())
    stages = list(dict.fromkeys(record.stage for record in records))
    rows = [_row(measurements.title(name), [r for r in records if r.stage == name]) for name in stages]
    return Section(
        stages=[*rows, _row("All stages", records)],
        kinds=[(kind, duration(s), f"{100 * s / found.available:.1f} %") for kind, s in found.kinds().items()],
        notes=[f"The tables have cost {hours}.", in_words(found), DEFINITION],
    )


def duration(seconds: float) -> str:
    """Such as ``4.2 s``, ``3 min 20 s`` or ``1 h 05 min``."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _row(name: str, records: Sequence[JobRecord]) -> StageTime:
    threads = sorted({record.threads for record in records})
    return StageTime(
        stage=name,
        jobs=len(records),
        attempts=sum(record.attempts for record in records),
        total=duration(sum(record.seconds for record in records)),
        start=duration(sum(record.start_seconds for record in records)),
        longest=duration(max(record.seconds for record in records)),
        memory=f"{max(record.peak_memory_mb for record in records):,.0f} MB",
        threads="–".join(str(count) for count in dict.fromkeys((threads[0], threads[-1]))),
    )
