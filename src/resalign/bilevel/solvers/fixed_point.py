"""Fixed-point iteration v ← (I − ω(I + γH)) v + g with x = ωv, the solver of ResAlign's released code."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from resalign.bilevel.ritz import RitzPairs
from resalign.bilevel.solution import Residual, Solution, System
from resalign.config.strict import Strict
from resalign.lazy import torch
from resalign.tensors.params import Params, add, scaled, unstacked, zeros_like


class Config(Strict):
    """Released: K = 5, ω = 1, and no iterate that the map makes longer."""

    name: Literal["fixed_point"] = "fixed_point"
    steps: int = Field(5, ge=1, description="K, iterates from v⁰ = 0 at every ω; the first is g and costs no product")
    relaxation: float = Field(1.0, gt=0, le=1, description="ω")
    max_amplification: float | None = Field(
        1.0, gt=0, description="of ‖(I − ω(I + γH)) v‖ / ‖v‖, a mean over tensors; above it the solve ends as diverged"
    )

    @property
    def products(self) -> int:
        """Of a solve that does not stop early."""
        return self.steps


def solve(system: System, config: Config) -> Solution:
    """K iterates from zero, or those before the first that grows.

    The iterates are Richardson's; a smaller ω does not raise K, and an iterate that grows ends the solve. A residual
    above 1 alone is no divergence here.

    Source: AntigoneRandy/ResAlign@14775d3, with γ = 1: descent of L_FT + ‖θ* − θ‖²/2 at the rate ω.
    """
    omega, ritz, residual = config.relaxation, RitzPairs(1.0, -config.relaxation), Residual(system)
    x, step, is_amplified = zeros_like(system.rhs), scaled(system.rhs, omega), False
    for _ in range(config.steps):
        if not residual.relative > 0:  # NaN stops the iteration too
            break
        following = add(x, step)
        # (I − ωA) v = v' − g, both sides times ω
        ends = (x, add(following, system.rhs, -omega))
        is_amplified = _amplification(*(_parts(end, system) for end in ends)) > (config.max_amplification or torch.inf)
        if is_amplified:
            break
        x = following
        product = residual.matvec(step)
        ritz.observe(step, product)
        step = add(step, product, -omega)
    solution = residual.solution(x, 0.0, ritz.extremes)
    if is_amplified or solution.relative_residual > 1:
        return replace(solution, state="diverged" if is_amplified else "max_steps")
    return solution


def _parts(x: Params, system: System) -> Params:
    """The tensors over which the release takes its mean."""
    (row, *_) = x.values()
    return unstacked(row, system.parts) if system.parts else x


def _amplification(before: Params, after: Params) -> float:
    """The mean over tensors of ‖after‖ / ‖before‖, without those that were zero before; 0 if all were."""
    ratios = [after[name].norm() / tensor.norm() for name, tensor in before.items() if tensor.any()]
    return float(torch.stack(ratios).mean()) if ratios else 0.0
