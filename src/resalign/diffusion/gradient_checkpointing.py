"""Gradient checkpointing: a function keeps its inputs and recomputes its activations when a derivative needs them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from resalign.diffusion.precision import autocast
from resalign.lazy import torch


def recomputed(function: Callable[..., Any], *inputs: torch.Tensor) -> Any:
    """``function(*inputs)``, keeping only the inputs for the backward pass, and for a backward pass of that.

    Args:
        function: Of tensors, to a tensor or several (None among them); without random numbers of its own.
        inputs: Every tensor that may need a gradient; closed-over values are constant.
    """
    return _recomputed()(function, *inputs)


def checkpointed(block: torch.nn.Module, *arguments: Any) -> Any:
    """One block of a network, in the form that diffusers' ``enable_gradient_checkpointing`` takes.

    The block's weights are inputs, those that ``functional_call`` has put in place of its own: torch's checkpointing
    would find the module's own in the backward pass.
    """
    names, weights = zip(*block.named_parameters(), strict=True)
    tensors = [argument for argument in arguments if isinstance(argument, torch.Tensor)]
    in_precision = autocast()

    def call(*inputs: torch.Tensor) -> Any:
        given = iter(inputs[: len(tensors)])
        filled = tuple(next(given) if isinstance(a, torch.Tensor) else a for a in arguments)
        with in_precision(weights[0].device.type):
            own = dict(zip(names, inputs[len(tensors) :], strict=True))
            return torch.func.functional_call(block, own, filled)

    return recomputed(call, *tensors, *weights)


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
            function = functools.partial(_vjp, ctx.function, wanted, given)
            inputs = (*ctx.saved_tensors, *(slope for slope in slopes if slope is not None))
            found = dict(zip(wanted, Recomputed.apply(function, *inputs), strict=True))
            return (None, *(found.get(index) for index in range(len(ctx.saved_tensors))))

    return Recomputed.apply


def _vjp(
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
