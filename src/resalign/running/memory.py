"""Running out of memory, as an error that names the stage, its sizes and the setting to lower."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from resalign.lazy import torch

# What each stage holds at once: the setting, and where a job keeps its value. A stage that is not here has none.
SETTINGS = {
    "unlearn": ("resources.unlearn.micro_batch_size", "micro_batch_size"),
    "attack": ("resources.attack.micro_batch_size", "micro_batch_size"),
    "sample": ("sampling.batch_size", "sampling.batch_size"),
    "score": ("scoring_batch_size", "batch_size"),
}
# Messages of torch without an error class of their own: its CPU allocator, the CUDA runtime and CUDA's libraries.
SIGNS = (
    "DefaultCPUAllocator: ",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


class MemoryExhausted(RuntimeError):
    """A stage does not fit into memory; the message names the setting to lower."""


@contextlib.contextmanager
def explained(stage: str, job: dict[str, Any]) -> Iterator[None]:
    """Within the block, running out of memory is a :class:`MemoryExhausted`; any other error is left as it is.

    Args:
        stage: Name of the stage's script.
        job: Its job.

    Raises:
        MemoryExhausted: If GPU or CPU memory cannot be had. (A process that the system kills cannot say it.)
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_exhaustion(error):
            raise
        raise MemoryExhausted(explanation(stage, job, error)) from error


def is_exhaustion(error: BaseException) -> bool:
    """Whether an error means that memory, of the GPU or of the host, has run out."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(sign in str(error) for sign in SIGNS)


def explanation(stage: str, job: dict[str, Any], error: BaseException) -> str:
    """Names the stage, the sizes of its job and the setting to lower."""
    found = dict(sizes(job))
    listed = ", ".join(f"{key} {value}" for key, value in found.items()) or "no sizes of its own"
    named = f"{stage} '{job['label']}'" if "label" in job else stage
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    device = job.get("device", "cpu")
    return f"{named} ran out of memory on {device}, at {listed}: {_remedy(stage, job, found)} ({reason})"


def sizes(values: Any, where: str = "") -> Iterator[tuple[str, int]]:
    """(dotted key, value) of every size in a job: pixels, batches, numbers of images and prompts."""
    if not isinstance(values, dict):
        return
    for key, value in values.items():
        place = f"{where}.{key}" if where else key
        counts = key in ("pixels", "images", "prompts") or key.endswith("batch_size")
        if counts and isinstance(value, int):
            yield place, value
        yield from sizes(value, place)


def _remedy(stage: str, job: dict[str, Any], found: dict[str, int]) -> str:
    if stage not in SETTINGS:
        return "lower one of these, or give it more memory"
    setting, place = SETTINGS[stage]
    now = found.get(place)
    keeps = stage in ("unlearn", "attack") and not job.get("gradient_checkpointing")
    blocks = f", or resources.{stage}.gradient_checkpointing: true" if keeps else ""
    if now == 1:
        return f"{setting} is 1 already; more memory is needed{blocks}, or images of fewer pixels"
    if now is None:
        largest = max((value for key, value in found.items() if key.endswith("batch_size")), default=1)
        return (
            f"set {setting}, now null for whole batches of up to {largest}, to {max(1, largest // 2)} or less{blocks}"
        )
    return f"lower {setting}, now {now}, to {now // 2} or less{blocks}"
