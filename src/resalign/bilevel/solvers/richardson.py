"""Richardson iteration x ← x + ω (g − A x), with A = I + γH: for ω = 1 it is x ← g − γHx."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from resalign.bilevel.solution import Solution, System
from resalign.bilevel.stationary import sum_of_powers
from resalign.config.strict import Strict
from resalign.tensors.named import scaled


class Config(Strict):
    """Published: K = 5, ω = 1."""

    name: Literal["richardson"] = "richardson"
    steps: int = Field(5, ge=1, description="K, iterates from x⁰ = 0; the first is ω g and costs no product")
    relaxation: float = Field(
        1.0, gt=0, le=1, description="ω; the steps are raised to steps / ω, so that K keeps its reach"
    )
    rtol: float = Field(1e-6, ge=0, description="relative residual at which to stop early")


def solve(system: System, config: Config) -> Solution:
    """K steps of Richardson iteration from zero.

    It converges only if |1 − ω(1 + γλ)| < 1 for every eigenvalue λ of H; for ω = 1 that is γ|λ| < 1. The relative
    residual tells: above 1 the iteration has left zero behind in the wrong direction. Dense equivalent:
    ``numpy.linalg.solve(I + γH, g)``.

    Source: [ResAlign, Alg. 1, Eq. 6]. Deviation: Eq. 7 as printed has another fixed point unless γ = 1; it is the
    solver ``richardson_printed``.
    """
    omega = config.relaxation
    steps = math.ceil(config.steps / omega)
    return sum_of_powers(system, scaled(system.rhs, omega), 1.0, -omega, steps=steps, rtol=config.rtol)
