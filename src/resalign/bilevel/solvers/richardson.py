"""Richardson iteration x ← x + ω (g − (I + γH) x), which for ω = 1 is x ← g − γHx [ResAlign, Eq. 6 times γ]."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from resalign.bilevel.ritz import RitzPairs
from resalign.bilevel.solution import Residual, Solution, System
from resalign.config.strict import Strict
from resalign.tensors.params import add, scaled, zeros_like


class Config(Strict):
    """Published: K = 5, ω = 1."""

    name: Literal["richardson"] = "richardson"
    steps: int = Field(5, ge=1, description="K, iterates from x⁰ = 0; the first is ω g and costs no product")
    relaxation: float = Field(
        1.0, gt=0, le=1, description="ω; the steps are raised to steps / ω, so that K keeps its reach"
    )
    rtol: float = Field(1e-6, ge=0, description="relative residual at which to stop early")
    residual: Literal["last", "before"] = Field(
        "last", description="whose it is: the last iterate's, or the one's before it, which saves a product"
    )

    @property
    def iterates(self) -> int:
        """Of a solve that does not stop early."""
        return math.ceil(self.steps / self.relaxation)

    @property
    def products(self) -> int:
        """Of a solve that does not stop early."""
        return self.iterates - (self.residual == "before")


def solve(system: System, config: Config) -> Solution:
    """K steps of Richardson iteration from zero.

    It converges only if |1 − ω(1 + γλ)| < 1 for every eigenvalue λ of H; for ω = 1 that is γ|λ| < 1. A relative
    residual above 1 shows divergence: the iterate is further from the solution than zero is. Dense equivalent:
    ``numpy.linalg.solve(I + γH, g)``.

    Source: [ResAlign, Alg. 1, Eq. 6]. Deviation: Eq. 7 as printed has another fixed point unless γ = 1; it is the
    solver ``richardson_printed``, whose loop differs from this one in its last line.
    """
    omega, ritz, residual = config.relaxation, RitzPairs(1.0, -config.relaxation), Residual(system)
    x, step = zeros_like(system.rhs), scaled(system.rhs, omega)
    for iterate in range(config.iterates):
        if not residual.relative > config.rtol:  # NaN stops the iteration too
            break
        x = add(x, step)
        if iterate == config.products:
            break
        product = residual.matvec(step)  # (I + γH) step, the only product of this iteration
        ritz.observe(step, product)
        step = add(step, product, -omega)  # next step = ω (g − (I + γH) x): for ω = 1, x ← g − γHx [Eq. 6]
    return residual.solution(x, config.rtol, ritz.extremes)
