"""What finished jobs left in their folders: when they ran, for how long, on what, and whose results they waited for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from resalign.hashes import read_record

TIMING = "timing.json"
RECORD = "run.json"
CPU = "cpu"  # the device's name in a record, where it is no GPU's
_SECONDS_AN_HOUR = 3600


@dataclass(frozen=True)
class JobRecord:
    """One finished job.

    Attributes:
        stage, label, seed: What it made.
        folder: Where it lies.
        device: What its device hours are hours of: its GPU, or one core of a CPU.
        on_gpu: Whether it had a GPU, one; a job that asked for a GPU where there is none had its threads' cores.
        threads: CPU threads that it held.
        seconds: Of the stage's own work, over all attempts.
        attempts: How often it was started.
        peak_memory_mb: Largest resident memory.
        started_at, ended_at: Creation of the last attempt's process, and its record's writing, in UNIX time.
        start_seconds: Of the last attempt, outside its own work: interpreter and imports.
        inputs_at: When the last of those results that it read was recorded; None where it read no other job's.
    """

    stage: str
    label: str
    seed: int
    folder: str
    device: str
    on_gpu: bool
    threads: int
    seconds: float
    attempts: int
    peak_memory_mb: float
    started_at: float
    ended_at: float
    start_seconds: float
    inputs_at: float | None = None

    @property
    def devices(self) -> int:
        """How many of its devices it held."""
        return 1 if self.on_gpu else self.threads

    @property
    def device_hours(self) -> float:
        """Own work over all attempts and the start of the last, times the devices held."""
        return self.devices * (self.seconds + self.start_seconds) / _SECONDS_AN_HOUR

    @property
    def own_seconds(self) -> float:
        """Own work of the last attempt: that of earlier ones lies outside its interval."""
        return max(0.0, min(self.seconds, self.ended_at - self.started_at - self.start_seconds))


def read_job_records(jobs: Iterable[tuple[str, str, int, str]]) -> list[JobRecord]:
    """The records of those jobs that have finished.

    Args:
        jobs: (stage, label, seed, folder) of each; see :func:`resalign.jobs.report.report_timings`.

    Raises:
        ValueError: If a record is damaged.
    """
    entries = [entry for entry in jobs if all((Path(entry[3]) / name).is_file() for name in (TIMING, RECORD))]
    timings = {PurePosixPath(folder): read_record(Path(folder) / TIMING) for *_, folder in entries}
    return [_record(entry, timings) for entry in entries]


def _record(entry: tuple[str, str, int, str], timings: dict[PurePosixPath, dict[str, Any]]) -> JobRecord:
    stage, label, seed, folder = entry
    timing, job = timings[PurePosixPath(folder)], read_record(Path(folder) / RECORD).get("job", {})
    name = timing.get("device", CPU)
    keys = ("threads", "seconds", "attempts", "peak_memory_mb", "started_at", "ended_at", "start_seconds")
    missing = [key for key in (*keys, "machine", "cpus") if key not in timing]
    if missing:
        raise ValueError(f"{folder}/{TIMING} lacks {missing}; delete it to have the job run again")
    return JobRecord(
        stage,
        label,
        seed,
        folder,
        device=f"{timing['machine']} core (1 of {timing['cpus']})" if name == CPU else name,
        on_gpu=name != CPU,
        **{key: timing[key] for key in keys},
        inputs_at=max((timings[source]["ended_at"] for source in _sources(folder, job, timings)), default=None),
    )


def _sources(folder: str, job: dict[str, Any], known: Iterable[PurePosixPath]) -> set[PurePosixPath]:
    """Folders of those jobs that a job's settings name: whatever it read, it was told where it lies."""
    named = set(_strings(job))
    found = {parent for name in named for parent in (PurePosixPath(name), *PurePosixPath(name).parents)}
    return (found & set(known)) - {PurePosixPath(folder)}


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for member in value.values() if isinstance(value, dict) else value:
            yield from _strings(member)
