"""Results of finished jobs, as the stages record them, without any computation."""

import json
from pathlib import Path
from typing import Any

from resalign.accounting.job_records import JobRecord
from resalign.accounting.planned_jobs import PlannedJob

IMAGE_BYTES = 1000


def record(started_at: float, ended_at: float, seconds: float, start_seconds: float, **others: Any) -> JobRecord:
    """A record of a job of which nothing but its time matters."""
    values = {"device": "core", "on_gpu": False, "threads": 1, "attempts": 1, "peak_memory_mb": 100.0, **others}
    times = {"started_at": started_at, "ended_at": ended_at, "seconds": seconds, "start_seconds": start_seconds}
    return JobRecord("attack", "made up", 0, "results/made-up", **values, **times)


def write_record(root: Path, job: PlannedJob, **timing: Any) -> None:
    """Writes what a planned job leaves below a root: its records, and files of known sizes; ``timing`` is merged in."""
    folder = root / job.folder
    folder.mkdir(parents=True, exist_ok=True)
    if not job.made.startswith("timing"):
        (folder / job.made).write_bytes(b"")
        return
    values = {"seconds": 10.0, "start_seconds": 2.0, "started_at": 1000.0, "ended_at": 1013.0, "attempts": 1}
    values |= {"threads": job.threads, "cpus": 2, "machine": "x86_64", "peak_memory_mb": 100.0, **timing}
    files = {"run.json": json.dumps({"job": job.job, "seed": job.seed}), "timing.json": json.dumps(values)}
    if job.stage == "sample":
        assert job.units is not None
        images = [f"{Path(job.folder).parent}/images/{number}.png" for number in range(job.units)]
        for name in images:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(bytes(IMAGE_BYTES))
        files["images.csv"] = "\n".join(["path", *images, ""])
    for name, text in files.items():
        (folder / name).write_text(text)


def size_of(root: Path, job: PlannedJob) -> int:
    """Bytes that :func:`write_record` has written for a job, images included."""
    images = (job.units or 0) * IMAGE_BYTES if job.stage == "sample" else 0
    return images + sum(path.stat().st_size for path in (root / job.folder).iterdir() if path.is_file())
