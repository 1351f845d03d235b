"""Micro-batches: a network called on parts of a batch, so that it keeps one part's activations for the backward pass.

The loss stays the mean over the whole batch, and its gradient is accumulated over the parts by autograd itself: first
derivatives and Hessian products of every order are those of the whole batch up to rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar

from resalign.diffusion.gradient_checkpointing import recomputed
from resalign.lazy import torch

_SIZE: ContextVar[int | None] = ContextVar("micro_batch_size", default=None)


@contextlib.contextmanager
def micro_batches(size: int | None) -> Iterator[None]:
    """Within the block networks see at most ``size`` examples at once; None for whole batches."""
    token = _SIZE.set(size)
    try:
        yield
    finally:
        _SIZE.reset(token)


def micro_batch_size() -> int | None:
    """Of the surrounding block."""
    return _SIZE.get()


def in_parts(
    function: Callable[..., torch.Tensor], examples: Sequence[torch.Tensor], shared: Sequence[torch.Tensor] = ()
) -> torch.Tensor:
    """``function(*examples, *shared)``, micro-batch by micro-batch.

    Where a gradient may be needed, each part keeps only its inputs and is recomputed in the backward pass; a backward
    pass that is differentiated in turn is recomputed, too.

    Args:
        function: A network whose examples do not see each other, without random numbers of its own: (B, …) → (B, …).
        examples: Tensors whose first dimension is the batch, (B, …).
        shared: Tensors that all parts share, such as weights.
    """
    size = _SIZE.get()
    if size is None:
        return function(*examples, *shared)
    parts = zip(*(tensor.split(size) for tensor in examples), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([function(*part, *shared) for part in parts])
    return torch.cat([recomputed(function, *part, *shared) for part in parts])
