"""Where the core-seconds of a workflow run went, worked out from its jobs' intervals.

While a run lasts it has ``wall × cores`` core-seconds to spend. Each of them is one of four kinds, and they add up:

- *own work*: a stage's own seconds, times the threads that it holds;
- *process*: the rest of a job's interval: interpreter, imports, reading its settings, writing its records;
- *Snakemake*: a core was idle although a job that fits it could have been started: its inputs were there. The start of
  Snakemake itself belongs here where it is known;
- *no job ready*: a core was idle because every job that was left waited for another's result.

What is not seen is conservative: the end of a process after its record is written counts as Snakemake or as no job
ready, and so do earlier attempts of a job that was started again, whose seconds are in the device hours alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from resalign.accounting.job_records import JobRecord

# Longer than Snakemake ever takes between two jobs here: what is longer lies between two runs, and is nobody's.
GAP_SECONDS = 60.0
# Start and end of a process are told by different clocks: two jobs that overlap for less follow each other.
CLOCKS_SECONDS = 1.0


@dataclass(frozen=True)
class CoreTime:
    """Core-seconds by kind.

    Attributes:
        wall_seconds: From a run's start to its last job's end, summed over runs.
        runs: Stretches of time without a gap.
        cores: The most cores that were held at once.
        own, process, snakemake, no_job_ready: See the module; together ``wall_seconds × cores``.
    """

    wall_seconds: float
    runs: int
    cores: int
    own: float
    process: float
    snakemake: float
    no_job_ready: float

    @property
    def available(self) -> float:
        """Core-seconds that there were to spend."""
        return self.wall_seconds * self.cores

    @property
    def overhead(self) -> float:
        """Share of process start, imports, records and Snakemake itself."""
        return (self.process + self.snakemake) / self.available

    def kinds(self) -> dict[str, float]:
        """Each kind's core-seconds."""
        return {
            "own work": self.own,
            "process start, imports and records": self.process,
            "Snakemake: a job was ready, a core idle": self.snakemake,
            "no job ready": self.no_job_ready,
        }


def core_time(jobs: Sequence[JobRecord], *, run_started_at: float | None = None) -> CoreTime:
    """Sorts every core-second into its kind.

    Args:
        jobs: All jobs behind a result; they may come from several runs, on several days.
        run_started_at: When the latest run's Snakemake process was created, where it is known: that run begins with it.

    Raises:
        ValueError: If there is no job.
    """
    if not jobs:
        raise ValueError("no job's time was recorded; run one, then ask again")
    begun = {job.started_at + CLOCKS_SECONDS for job in jobs}
    cores = max(
        sum(job.threads for job in jobs if job.started_at + CLOCKS_SECONDS <= at < job.ended_at) for at in begun
    )
    cores = cores or max(job.threads for job in jobs)
    snakemake = idle = wall = 0.0
    runs = _runs(jobs, run_started_at)
    for begun_at, members in runs:
        ended_at = max(job.ended_at for job in members)
        wall += ended_at - begun_at
        ready = [(max(begun_at, job.inputs_at or begun_at), job) for job in members]
        times = {at for job in members for at in (job.started_at, job.ended_at)}
        edges = sorted({begun_at, ended_at, *times, *(at for at, _ in ready if at < ended_at)})
        for left, right in itertools.pairwise(edges):
            free = cores - sum(job.threads for job in members if job.started_at <= left < job.ended_at)
            waiting = (job.threads for at, job in ready if at <= left < job.started_at and job.threads <= free)
            blocked = max(0, min(free, sum(waiting)))
            snakemake += blocked * (right - left)
            idle += (free - blocked) * (right - left)
    own = sum(job.own_seconds * job.threads for job in jobs)
    held = sum((job.ended_at - job.started_at) * job.threads for job in jobs)
    return CoreTime(wall, len(runs), cores, own, held - own, snakemake, idle)


def _runs(jobs: Sequence[JobRecord], run_started_at: float | None) -> list[tuple[float, list[JobRecord]]]:
    """(begin, jobs) of every stretch of time without a gap, in order."""
    runs: list[tuple[float, list[JobRecord]]] = []
    last_end = float("-inf")
    for job in sorted(jobs, key=lambda job: job.started_at):
        begins = job.started_at
        # A shell that becomes Snakemake by exec has made its process long before.
        if run_started_at is not None and max(last_end, begins - GAP_SECONDS) <= run_started_at <= begins:
            begins = run_started_at  # the first job that the latest run has started
        if begins - last_end > GAP_SECONDS:
            runs.append((begins, []))
        runs[-1][1].append(job)
        last_end = max(last_end, job.ended_at)
    return runs
