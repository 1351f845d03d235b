"""The precision in which networks compute during training; their weights are not converted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar

from resalign.config.precision import TrainingPrecision
from resalign.lazy import torch
from resalign.tensors.losses import Loss
from resalign.tensors.params import Params

_PRECISION: ContextVar[TrainingPrecision] = ContextVar("training_precision", default="float32")


@contextlib.contextmanager
def training_precision(name: TrainingPrecision) -> Iterator[None]:
    """Within the block matrix products of networks are taken in ``name``; weights, losses and updates in float32.

    Losses whose curvature is asked for stay in float32, too; see :func:`in_float32`.
    """
    token = _PRECISION.set(name)
    try:
        yield
    finally:
        _PRECISION.reset(token)


def current_precision() -> TrainingPrecision:
    """The surrounding block's."""
    return _PRECISION.get()


def in_float32(loss: Loss) -> Loss:
    """A loss whose networks compute in float32 whatever the surrounding precision, for its curvature.

    Differences of gradients drown in bfloat16's rounding, and a double backward pass through oneDNN's bfloat16
    convolutions is wrong [torch 2.15: half of a Hessian product of the tests' UNet].
    """

    def evaluated(weights: Params) -> torch.Tensor:
        with training_precision("float32"):
            return loss(weights)

    return evaluated


def autocast() -> Callable[[str], AbstractContextManager[None]]:
    """A context of the current precision, by type of device; it may be entered later, in a backward pass."""
    name = _PRECISION.get()

    @contextlib.contextmanager
    def context(device_type: str) -> Iterator[None]:
        # A functional call uses each weight once: a cache of cast weights would hold memory and save nothing.
        cast = torch.autocast(device_type, dtype=getattr(torch, name), enabled=name != "float32", cache_enabled=False)
        with training_precision(name), cast:  # also of blocks that are computed anew within
            yield

    return context
