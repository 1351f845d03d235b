"""The iteration of [ResAlign, Eq. 7] as it is printed, x ← (g − Hx)/γ, which reproduces the paper's γ sweep."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from resalign.bilevel.ritz import RitzPairs
from resalign.bilevel.solution import Residual, Solution, System
from resalign.config.strict import Strict
from resalign.tensors.params import add, scaled, zeros_like


class Config(Strict):
    """Published: K = 5."""

    name: Literal["richardson_printed"] = "richardson_printed"
    steps: int = Field(5, ge=1, description="K, iterates from x⁰ = 0; the first is g/γ and costs no product")

    @property
    def products(self) -> int:
        """Of a solve that does not stop early."""
        return self.steps


def solve(system: System, config: Config) -> Solution:
    """K steps of the printed iteration from zero.

    It does NOT solve [ResAlign, Eq. 6] unless γ = 1: where ‖H‖ < γ it converges to (γI + H)⁻¹g. The reported residual
    is that of Eq. 6, (I + γH)x = g. Dense equivalent: ``numpy.linalg.solve(γI + H, g)``.

    Source: [ResAlign, Eq. 7].
    """
    gamma, ritz, residual = system.gamma, RitzPairs(system.gamma**-2, -(system.gamma**-2)), Residual(system)
    x, step = zeros_like(system.rhs), scaled(system.rhs, 1 / gamma)
    for _ in range(config.steps):
        if not residual.relative > 0:  # NaN stops the iteration too
            break
        x = add(x, step)
        product = residual.matvec(step)  # (I + γH) step, the only product of this iteration
        ritz.observe(step, product)
        step = add(scaled(step, gamma**-2), product, -(gamma**-2))  # next step = −(1/γ)H step: x ← (g − Hx)/γ [Eq. 7]
    return residual.solution(x, 0.0, ritz.extremes)
