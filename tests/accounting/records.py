"""Records of finished jobs, without any computation."""

from typing import Any

from resalign.accounting.job_records import JobRecord


def record(seconds: float, start_seconds: float, **others: Any) -> JobRecord:
    """A record of a job of which only its time matters."""
    values = {"device": "core", "on_gpu": False, "threads": 1, "attempts": 1, "peak_memory_mb": 100.0, **others}
    times = {"seconds": seconds, "start_seconds": start_seconds}
    return JobRecord("attack", "made up", 0, "results/made-up", **values, **times)
