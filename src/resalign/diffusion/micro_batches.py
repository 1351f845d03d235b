"""Micro-batches: a network's call in parts of a batch, so that what it keeps for the backward pass is one part's.

The loss stays the mean over the whole batch, and its gradient is accumulated over the parts by autograd itself: first
derivatives and Hessian products of every order are those of the whole batch up to rounding.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from resalign.lazy import torch

_SIZE: ContextVar[int | None] = ContextVar("micro_batch_size", default=None)


@contextlib.contextmanager
def micro_batches(size: int | None) -> Iterator[None]:
    """Within the block a network sees so many examples at once at most; None for whole batches."""
    token = _SIZE.set(size)
    try:
        yield
    finally:
        _SIZE.reset(token)


def in_parts(
    function: Callable[..., torch.Tensor], examples: Sequence[torch.Tensor], shared: Sequence[torch.Tensor] = ()
) -> torch.Tensor:
    """``function(*examples, *shared)``, micro-batch by micro-batch.

    Where a gradient may be asked for, each part keeps its inputs alone and is computed again in the backward pass; a
    backward pass that is differentiated in turn is computed again, too.

    Args:
        function: A network whose examples do not see each other, without random numbers of its own: (B, …) → (B, …).
        examples: Tensors whose first dimension is the batch, (B, …).
        shared: What all parts share, as weights.
    """
    size = _SIZE.get()
    if size is None:
        return function(*examples, *shared)
    parts = zip(*(tensor.split(size) for tensor in examples), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([function(*part, *shared) for part in parts])
    return torch.cat([_recomputed()(function, *part, *shared) for part in parts])


@functools.cache  # and not at the module's top, which must not import torch
def _recomputed() -> Callable[..., Any]:
    """``apply(function, *inputs)``: checkpointing that holds for derivatives of derivatives.

    Source: Chen 2016, arXiv 1604.06174, Section 4. Deviation: torch.utils.checkpoint recomputes a first backward pass
    only; what a second one needs, it keeps for all parts at once.
    """

    class Recomputed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, function: Callable[..., Any], *inputs: torch.Tensor) -> Any:
            ctx.function = function
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(*inputs)
            return function(*inputs)

        @staticmethod
        def backward(ctx: Any, *slopes: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
            wanted = [index for index, needed in enumerate(ctx.needs_input_grad[1:]) if needed]
            given = [index for index, slope in enumerate(slopes) if slope is not None]
            function = functools.partial(_pulled_back, ctx.function, wanted, given)
            inputs = (*ctx.saved_tensors, *(slope for slope in slopes if slope is not None))
            found = dict(zip(wanted, Recomputed.apply(function, *inputs), strict=True))
            return (None, *(found.get(index) for index in range(len(ctx.saved_tensors))))

    return Recomputed.apply


def _pulled_back(
    function: Callable[..., Any], wanted: Sequence[int], given: Sequence[int], *tensors: torch.Tensor
) -> tuple[torch.Tensor | None, ...]:
    """Jᵀv of ``function``, J its Jacobian with respect to the inputs ``wanted``, v at its outputs ``given``.

    Args:
        function: (*inputs) → a tensor or several.
        wanted: Which inputs are differentiated.
        given: Which outputs have a slope.
        tensors: The inputs, then the slopes v.
    """
    inputs, slopes = tensors[: -len(given)], tensors[-len(given) :]
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        if not differentiable:
            inputs = tuple(x.detach().requires_grad_(index in wanted) for index, x in enumerate(inputs))
        outputs = function(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        pairs = [(outputs[index], slope) for index, slope in zip(given, slopes, strict=True)]
        curved = [(output, slope) for output, slope in pairs if output is not None and output.requires_grad]
        if not curved:  # affine in all of its inputs
            return (None,) * len(wanted)
        return torch.autograd.grad(
            [output for output, _ in curved],
            [inputs[index] for index in wanted],
            [slope for _, slope in curved],
            create_graph=differentiable,
            allow_unused=True,
        )
