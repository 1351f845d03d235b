"""Conjugate gradients, for I + γH positive definite."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from resalign.bilevel.ritz import tridiagonal_extremes
from resalign.bilevel.solution import Solution, System
from resalign.config.strict import Strict
from resalign.lazy import torch
from resalign.tensors.params import add, dot, norm, zeros_like
from resalign.tensors.steps import DivergenceError


class Config(Strict):
    """As many products as the published Richardson iteration."""

    name: Literal["conjugate_gradient"] = "conjugate_gradient"
    steps: int = Field(5, ge=1, description="largest number of steps, one product each")
    rtol: float = Field(1e-6, ge=0, description="relative residual at which to stop")

    @property
    def products(self) -> int:
        """Of a solve that does not stop early."""
        return self.steps


def solve(system: System, config: Config) -> Solution:
    """Hestenes' and Stiefel's method from zero; SciPy's is ``scipy.sparse.linalg.cg``.

    Raises:
        DivergenceError: If a direction p has pᵀ(I + γH)p ≤ 0 up to rounding: then H has an eigenvalue with γλ ≤ −1,
            the system is not positive definite, and conjugate gradients would not return a solution.

    Source: Saad 2003, Iterative Methods for Sparse Linear Systems, Algorithm 6.18; Ritz values by Section 6.7.3.
    """
    x, residual = zeros_like(system.rhs), dict(system.rhs)
    direction, size, start = dict(residual), norm(system.rhs), system.products
    if size == 0:
        return Solution(x, 0.0, 0, "converged")
    rounding = max(torch.finfo(tensor.dtype).eps for tensor in residual.values())
    squared, largest, relative = size**2, 0.0, 1.0
    diagonal: list[float] = []
    beside: list[float] = []
    alpha = beta = 0.0
    for step in range(config.steps):
        product = system.matvec(direction)
        curved, length = float(dot(direction, product)), float(dot(direction, direction))
        largest = max(largest, abs(curved) / length)
        if curved <= rounding * largest * length:
            raise DivergenceError(
                f"conjugate gradients met a direction of negative curvature at step {step}: the Rayleigh quotient of"
                f" I + γH is {curved / length:.3g} at γ {system.gamma:g}; lower gamma, or set solver: minres"
            )
        diagonal.append(curved / squared + (beta / alpha if step else 0.0))
        alpha = squared / curved
        x, residual = add(x, direction, alpha), add(residual, product, -alpha)
        squared, previous = float(dot(residual, residual)), squared
        relative = squared**0.5 / size
        if not relative > config.rtol:
            break
        beta = squared / previous
        beside.append(beta**0.5 / alpha)
        direction = add(residual, direction, beta)
    return Solution.of(x, relative, system.products - start, config.rtol, tridiagonal_extremes(diagonal, beside))
