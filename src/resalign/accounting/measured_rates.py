"""Rates measured from the records of finished jobs: medians over the jobs that did the same work."""

from __future__ import annotations

import csv
import datetime
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import median

from resalign.accounting.job_records import TIMING, JobRecord, read_job_records
from resalign.accounting.planned_jobs import PlannedJob
from resalign.accounting.rates import Rate, Work, work_of


def measure_rates(planned: Iterable[PlannedJob], source: str) -> list[Rate]:
    """Rates of every kind of job that has finished and was recorded.

    Left out are sampling jobs that found images there already, and jobs that ran on the CPU for want of a GPU.

    Args:
        planned: The jobs of an experiment, each once.
        source: Where a reader finds what was measured.
    """
    found: dict[tuple[Work, str], list[tuple[PlannedJob, JobRecord]]] = defaultdict(list)
    for job in planned:
        if job.is_recorded and job.units is not None:
            (record,) = read_job_records([job.entry])
            if record.on_gpu == job.wants_gpu and _has_made_all(job, record):
                found[work_of(job), record.device].append((job, record))
    return [_rate(work, device, measured, source) for (work, device), measured in found.items()]


def _has_made_all(job: PlannedJob, record: JobRecord) -> bool:
    """Whether the seconds of a sampling job are those of all its images: a larger tier makes only what is missing."""
    if job.stage != "sample":
        return True
    return record.attempts == 1 and all(image.stat().st_mtime >= record.started_at for image in _images(job))


def _rate(work: Work, device: str, measured: list[tuple[PlannedJob, JobRecord]], source: str) -> Rate:
    units = [job.units or 1 for job, _ in measured]
    sizes = [sum(path.stat().st_size for path in _files(job)) for job, _ in measured]
    last = datetime.datetime.fromtimestamp(max(record.ended_at for _, record in measured), datetime.UTC)
    return Rate(
        **asdict(work),
        device_seconds=median(r.devices * r.seconds / n for (_, r), n in zip(measured, units, strict=True)),
        start_device_seconds=median(record.devices * record.start_seconds for _, record in measured),
        bytes=round(median(size / (n if work.unit == "image" else 1) for size, n in zip(sizes, units, strict=True))),
        jobs=len(measured),
        device=device,
        date=last.date().isoformat(),
        source=source,
    )


def _files(job: PlannedJob) -> Iterator[Path]:
    """What a job takes on the disk: its folder without those of other jobs in it, and images that lie beside it."""
    yield from _below(Path(job.folder))
    if job.stage == "sample":
        yield from _images(job)


def _images(job: PlannedJob) -> Iterator[Path]:
    """The images that a sampling job has listed."""
    with (Path(job.folder) / "images.csv").open(encoding="utf-8", newline="") as file:
        yield from (Path(row["path"]) for row in csv.DictReader(file))


def _below(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir() and not (path / TIMING).is_file():
            yield from _below(path)
        elif path.is_file():
            yield path
