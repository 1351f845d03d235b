"""In which precision networks compute while they are trained; their weights stay as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar

from resalign.config.precision import TrainingPrecision
from resalign.lazy import torch

_PRECISION: ContextVar[TrainingPrecision] = ContextVar("training_precision", default="float32")


@contextlib.contextmanager
def training_precision(name: TrainingPrecision) -> Iterator[None]:
    """Within the block matrix products of networks are taken in ``name``; weights, losses and updates in float32."""
    token = _PRECISION.set(name)
    try:
        yield
    finally:
        _PRECISION.reset(token)


def autocast() -> Callable[[str], AbstractContextManager[None]]:
    """A context of the precision that holds now, by type of device; it may be entered later, in a backward pass."""
    name = _PRECISION.get()

    def context(device_type: str) -> AbstractContextManager[None]:
        # A functional call uses each weight once: a cache of cast weights would hold memory and save nothing.
        return torch.autocast(device_type, dtype=getattr(torch, name), enabled=name != "float32", cache_enabled=False)

    return context
