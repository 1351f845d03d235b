"""The truncated Neumann series ω Σ_k (I − ωA)ᵏ g, with A = I + γH."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from resalign.bilevel.ritz import RitzPairs
from resalign.bilevel.solution import Residual, Solution, System
from resalign.config.strict import Strict
from resalign.tensors.params import add, scaled, zeros_like


class Config(Strict):
    """As many terms as the published Richardson iteration has steps."""

    name: Literal["neumann"] = "neumann"
    terms: int = Field(5, ge=1, description="terms of the series, g itself being the first")
    scale: float = Field(1.0, gt=0, description="ω; unlike Richardson's relaxation it does not raise the terms")

    @property
    def products(self) -> int:
        """Of a solve that does not stop early."""
        return self.terms


def solve(system: System, config: Config) -> Solution:
    """Sums a fixed number of terms, at a fixed cost and without a tolerance.

    At equal ω and number of terms the sum is the Richardson iterate; the two solvers differ in the cost of a smaller ω.

    Source: Lorraine 2020, arXiv 1911.02590, Algorithm 3.
    """
    omega, ritz, residual = config.scale, RitzPairs(1.0, -config.scale), Residual(system)
    x, term = zeros_like(system.rhs), scaled(system.rhs, omega)
    for _ in range(config.terms):
        if not residual.relative > 0:  # NaN stops the series too
            break
        x = add(x, term)
        product = residual.matvec(term)
        ritz.observe(term, product)
        term = add(term, product, -omega)  # (I − ωA) times the term before
    return residual.solution(x, 0.0, ritz.extremes)
