"""[ResAlign, Eq. 7] as it is printed, x ← g/γ − (1/γ)Hx, for reproducing the paper's γ sweep."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from resalign.bilevel.solution import Solution, System
from resalign.bilevel.stationary import sum_of_powers
from resalign.config.strict import Strict
from resalign.tensors.named import scaled


class Config(Strict):
    """Published: K = 5."""

    name: Literal["richardson_printed"] = "richardson_printed"
    steps: int = Field(5, ge=1, description="K, iterates from x⁰ = 0; the first is g/γ and costs no product")


def solve(system: System, config: Config) -> Solution:
    """K steps of the printed iteration from zero.

    It does NOT solve [ResAlign, Eq. 6] unless γ = 1: it converges, where ‖H‖ < γ, to (γI + H)⁻¹g. The residual that it
    reports is that of Eq. 6, (I + γH)x = g. Dense equivalent: ``numpy.linalg.solve(γI + H, g)``.

    Source: [ResAlign, Eq. 7].
    """
    gamma = system.gamma
    # −(1/γ)Hp = (p − (I + γH)p)/γ²
    return sum_of_powers(system, scaled(system.rhs, 1 / gamma), gamma**-2, -(gamma**-2), steps=config.steps, rtol=0.0)
