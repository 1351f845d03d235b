"""Richardson iteration x ← x + ω (g − A x), with A = I + γH: for ω = 1 it is x ← g − γHx."""

from __future__ import annotations

import math

from pydantic import Field

from resalign.bilevel.solution import Matvec, Solution
from resalign.config.strict import Strict
from resalign.tensors.named import Named, add, norm, scaled


class Config(Strict):
    """Published: K = 5, ω = 1."""

    steps: int = Field(5, ge=1, description="K, iterates from x⁰ = 0; the first is ω g and costs no product")
    relaxation: float = Field(
        1.0, gt=0, le=1, description="ω; the steps are raised to steps / ω, so that K keeps its reach"
    )


def solve(matvec: Matvec, rhs: Named, config: Config) -> Solution:
    """K steps of Richardson iteration from zero.

    It converges only if |1 − ω(1 + γλ)| < 1 for every eigenvalue λ of H; for ω = 1 that is γ|λ| < 1. The relative
    residual tells: above 1 the iteration has left zero behind in the wrong direction. Dense equivalent:
    ``numpy.linalg.solve(I + γH, g)``.

    Source: [ResAlign, Alg. 1, Eq. 6]. Deviation: Eq. 7 as printed, x ← g/γ − (1/γ)Hx, has another fixed point unless
    γ = 1; this is the iteration of Eq. 6 multiplied by γ.
    """
    omega = config.relaxation
    x = scaled(rhs, omega)  # x⁰ = 0, so that x¹ = ω g without a product
    steps = math.ceil(config.steps / omega)
    for _ in range(steps - 1):
        x = add(x, add(rhs, matvec(x), -1.0), omega)
    size = norm(rhs)
    residual = 0.0 if size == 0 else norm(add(rhs, matvec(x), -1.0)) / size  # NaN stays NaN
    return Solution(x, relative_residual=residual, products=steps)
