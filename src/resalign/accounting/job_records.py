"""Time, memory and device of finished jobs, read from the records in their folders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from resalign.hashes import read_record

TIMING = "timing.json"
RECORD = "run.json"
CPU = "cpu"  # the device's name in a record, where it is no GPU's
_SECONDS_AN_HOUR = 3600


@dataclass(frozen=True)
class JobRecord:
    """One finished job.

    Attributes:
        stage, label, seed: Identity of the run.
        folder: Folder of its results.
        device: Unit of its device hours: the GPU's model, or one core of a CPU.
        on_gpu: Whether it held a GPU, always one; a job on the CPU held a core for each thread.
        threads: CPU threads that it held.
        seconds: Work on the job itself, over all attempts.
        attempts: How often it was started.
        peak_memory_mb: Largest resident memory.
        start_seconds: Start of the last attempt: interpreter and imports.
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
    start_seconds: float

    @property
    def devices(self) -> int:
        """How many of its devices it held."""
        return 1 if self.on_gpu else self.threads

    @property
    def device_hours(self) -> float:
        """Own work over all attempts and the start of the last, times the devices held."""
        return self.devices * (self.seconds + self.start_seconds) / _SECONDS_AN_HOUR


def read_job_records(jobs: Iterable[tuple[str, str, int, str]]) -> list[JobRecord]:
    """The records of those jobs that have finished.

    Args:
        jobs: (stage, label, seed, folder) of each; see :func:`resalign.jobs.report.report_timings`.

    Raises:
        ValueError: If a record is damaged.
    """
    return [_record(*job) for job in jobs if all((Path(job[3]) / name).is_file() for name in (TIMING, RECORD))]


def _record(stage: str, label: str, seed: int, folder: str) -> JobRecord:
    timing = read_record(Path(folder) / TIMING)
    keys = ("threads", "seconds", "attempts", "peak_memory_mb", "start_seconds")
    missing = [key for key in (*keys, "machine", "cpus") if key not in timing]
    if missing:
        raise ValueError(f"{folder}/{TIMING} lacks {missing}; delete it to have the job run again")
    name = timing.get("device", CPU)
    return JobRecord(
        stage,
        label,
        seed,
        folder,
        device=f"{timing['machine']} core (1 of {timing['cpus']})" if name == CPU else name,
        on_gpu=name != CPU,
        **{key: timing[key] for key in keys},
    )
