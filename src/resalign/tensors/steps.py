"""One guarded optimizer step."""

from __future__ import annotations

from resalign.lazy import torch


class DivergenceError(ArithmeticError):
    """An optimisation whose loss or gradient is no longer a finite number."""


def clipped_step(optimizer: torch.optim.Optimizer, loss: torch.Tensor, max_norm: float | None, *, what: str) -> float:
    """Backpropagates, clips the gradient's norm and steps.

    Args:
        optimizer: Holds the variables.
        loss: A scalar.
        max_norm: Largest gradient norm; None for no clipping.
        what: Which step of which method, for the error.

    Returns:
        The gradient's norm before clipping.

    Raises:
        DivergenceError: If loss or gradient is not finite; nothing has been changed then.
    """
    optimizer.zero_grad()
    loss.backward()
    return apply_gradients(optimizer, max_norm, what=f"{what} (loss {loss.item():.4g})")


def apply_gradients(optimizer: torch.optim.Optimizer, max_norm: float | None, *, what: str) -> float:
    """Clips the gradients that the variables already have and steps; see :func:`clipped_step`."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    limit = float("inf") if max_norm is None else max_norm
    size = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
    if not torch.isfinite(torch.tensor(size)):
        raise DivergenceError(f"{what} diverged: gradient norm {size}; lower its lr, or set a truncation")
    optimizer.step()
    return size
