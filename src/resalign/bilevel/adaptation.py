"""The simulated fine-tuning: a few optimizer steps on a loss, outside every graph [ResAlign, Alg. 2, line 7]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from resalign.lazy import torch
from resalign.tensors.params import Params, detached
from resalign.tensors.steps import DivergenceError


def adapt(
    loss_at: Callable[[int, Params], torch.Tensor],
    variables: Params,
    *,
    lr: float,
    steps: int,
    optimizer: Literal["sgd", "adam", "adamw"],
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Minimises a stochastic loss from given variables.

    The optimizer's state is new at each call: one simulated user does not inherit another's momentum.

    Args:
        loss_at: (step, variables) → scalar loss on that step's batch.
        variables: Where to start; left untouched.
        lr: Learning rate.
        steps: Optimizer steps; with 0 the variables come back unchanged.
        optimizer: Which of PyTorch's optimizers, at its defaults.

    Returns:
        The adapted variables (detached) and the loss at each step.

    Raises:
        DivergenceError: If a loss or the adapted variables are not finite.
    """
    leaves = detached(variables, requires_grad=True)
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    descent = kinds[optimizer](list(leaves.values()), lr=lr)
    losses = []
    for step in range(steps):
        loss = loss_at(step, leaves)
        if not torch.isfinite(loss):
            raise DivergenceError(
                f"simulated fine-tuning diverged at step {step} with {optimizer}, lr {lr}: loss {loss.item()}"
            )
        descent.zero_grad()
        loss.backward()
        descent.step()
        losses.append(loss.item())
    adapted = detached(leaves)
    if not all(torch.isfinite(tensor).all() for tensor in adapted.values()):
        raise DivergenceError(
            f"simulated fine-tuning diverged at its last step with {optimizer}, lr {lr}: infinite weights"
        )
    return adapted, losses
