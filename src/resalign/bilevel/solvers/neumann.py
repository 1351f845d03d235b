"""Truncated Neumann series ω Σ_k (I − ωA)ᵏ g, with A = I + γH."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from resalign.bilevel.solution import Solution, System
from resalign.bilevel.stationary import sum_of_powers
from resalign.config.strict import Strict
from resalign.tensors.named import scaled


class Config(Strict):
    """As many terms as the published Richardson iteration has steps."""

    name: Literal["neumann"] = "neumann"
    terms: int = Field(5, ge=1, description="terms of the series, g itself being the first")
    scale: float = Field(1.0, gt=0, description="ω; unlike Richardson's relaxation it does not raise the terms")


def solve(system: System, config: Config) -> Solution:
    """The series' first terms: a truncation at a fixed cost is wanted, and no tolerance.

    At equal ω and number of terms it is the Richardson iterate; they differ in what a smaller ω costs.

    Source: Lorraine 2020, arXiv 1911.02590, Algorithm 3.
    """
    omega = config.scale
    return sum_of_powers(system, scaled(system.rhs, omega), 1.0, -omega, steps=config.terms, rtol=0.0)
