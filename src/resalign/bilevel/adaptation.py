"""The simulated fine-tuning: a few optimizer steps on a loss, outside every graph [ResAlign, Alg. 2, line 7]."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from resalign.lazy import torch
from resalign.tensors.losses import Loss, Rows, loss_at, value_and_gradient
from resalign.tensors.params import Params
from resalign.tensors.steps import DivergenceError

Optimizer = Literal["sgd", "adam", "adam_twice_corrected", "adamw"]


def adapt(
    loss_of: Callable[[int], Loss],
    variables: Params,
    *,
    lr: float,
    steps: int,
    optimizer: Optimizer,
    state: dict[str, Any] | None = None,
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Minimises a stochastic loss from given variables, which the optimizer has as one tensor.

    Args:
        loss_of: Step → scalar loss of the variables, on that step's batch.
        variables: Where to start; left untouched.
        lr: Learning rate.
        steps: Optimizer steps; with 0 the variables come back unchanged.
        optimizer: Which of PyTorch's optimizers, at its defaults. ``adam_twice_corrected`` is Adam at the rate
            lr · √(1 − β₂ᵗ)/(1 − β₁ᵗ): the released code corrects the bias of its moments, and of its rate once more.
        state: The optimizer's state after an earlier call, which this call goes on from and replaces; empty before the
            first. Without it the state is new: one simulated user does not inherit another's momentum.

    Returns:
        The adapted variables (detached) and the loss at each step.

    Raises:
        DivergenceError: If a loss or the adapted variables are not finite.
    """
    rows = Rows.of(variables=variables)
    point = rows.row("variables", variables)
    row = point["variables"]
    kinds: dict[str, Any] = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    descent = kinds.get(optimizer, torch.optim.Adam)([row], lr=lr)
    if state:
        descent.load_state_dict(state)
    before = int(next((moments["step"] for moments in descent.state.values()), 0))
    losses = []
    for step in range(steps):
        if optimizer == "adam_twice_corrected":
            (group,), t = descent.param_groups, before + step + 1
            group["lr"] = lr * math.sqrt(1 - group["betas"][1] ** t) / (1 - group["betas"][0] ** t)
        value, slope = value_and_gradient(loss_at(loss_of(step), rows), point)
        losses.append(value.item())
        if not math.isfinite(losses[-1]):
            raise DivergenceError(
                f"simulated fine-tuning diverged at step {step} with {optimizer}, lr {lr}: loss {losses[-1]}"
            )
        row.grad = slope.pop("variables")
        descent.step()
        row.grad = None  # before there is another one
    if state is not None:
        state.update(descent.state_dict())
    if not torch.isfinite(row).all():
        raise DivergenceError(
            f"simulated fine-tuning diverged at its last step with {optimizer}, lr {lr}: infinite weights"
        )
    return rows.named("variables", point), losses
