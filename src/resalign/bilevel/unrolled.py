"""Derivatives through every step of a simulated fine-tuning: what the cheaper hypergradients are held against."""

from __future__ import annotations

from collections.abc import Sequence

from resalign.bilevel.adaptation import adapt
from resalign.bilevel.hvp import Loss
from resalign.lazy import torch
from resalign.tensors.params import Params, add, detached, gradient, norm


def unrolled_hypergradient(
    outer_loss: Loss, inner_loss: Loss, start: Params, *, lr: float, steps: int
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """d/dθ L_harm(θ_T(θ)) by reverse-mode differentiation, θ_T being ``steps`` steps of gradient descent on L_FT.

    It keeps the graph of every step: memory grows with T, and a real model's does not fit. On a quadratic L_FT it is
    (I − ηH)ᵀ ∇L_harm(θ_T).

    Args:
        outer_loss: L_harm as a function of the weights.
        inner_loss: L_FT as a function of the weights, frozen batch: the same at every step.
        start: The weights θ.
        lr: η.
        steps: T.

    Returns:
        θ_T and the hypergradient, by weight name.

    Source: Franceschi 2017, arXiv 1703.01785, Section 3.1, for the initial point as hyperparameter.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    leaves = detached(start, requires_grad=True)
    weights: dict[str, torch.Tensor] = dict(leaves)
    with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no double backward
        for _ in range(steps):
            slopes = torch.autograd.grad(
                inner_loss(weights), list(weights.values()), create_graph=True, allow_unused=True
            )
            moved = zip(weights.items(), slopes, strict=True)
            weights = {name: tensor if slope is None else tensor - lr * slope for (name, tensor), slope in moved}
        return detached(weights), gradient(outer_loss(weights), leaves)


def directional_differences(
    outer_loss: Loss,
    inner_loss: Loss,
    start: Params,
    directions: Sequence[Params],
    *,
    lr: float,
    steps: int,
    length: float,
) -> list[float]:
    """The derivatives of L_harm(θ_T(θ)) along directions, each the central difference of two fine-tunings.

    No second derivative and no graph through a step: it shares none of :func:`unrolled_hypergradient`'s code.

    Args:
        outer_loss: L_harm as a function of the weights.
        inner_loss: L_FT as a function of the weights, frozen batch.
        start: The weights θ.
        directions: Of any length; the derivative is with respect to a multiple of each.
        lr: η.
        steps: T.
        length: ‖θ' − θ‖ of each displaced start θ'.

    Raises:
        DivergenceError: If a fine-tuning diverges.
    """

    def fine_tuned(shift: Params, size: float) -> float:
        moved = add(start, shift, size)
        adapted, _ = adapt(lambda _, weights: inner_loss(weights), moved, lr=lr, steps=steps, optimizer="sgd")
        with torch.no_grad():
            return outer_loss(adapted).item()

    derivatives = []
    for direction in directions:
        step = length / norm(direction)
        derivatives.append((fine_tuned(direction, step) - fine_tuned(direction, -step)) / (2 * step))
    return derivatives
