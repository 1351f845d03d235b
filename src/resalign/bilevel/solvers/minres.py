"""MINRES, for I + γH symmetric and possibly indefinite."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from resalign.bilevel.ritz import tridiagonal_extremes
from resalign.bilevel.solution import Solution, System
from resalign.config.strict import Strict
from resalign.lazy import torch
from resalign.tensors.params import add, dot, norm, scaled, zeros_like


class Config(Strict):
    """As many products as the published Richardson iteration."""

    name: Literal["minres"] = "minres"
    steps: int = Field(5, ge=1, description="largest number of steps, one product each")
    rtol: float = Field(1e-6, ge=0, description="relative residual, or that of least squares, to stop at")

    @property
    def products(self) -> int:
        """Of a solve that does not stop early."""
        return self.steps


def solve(system: System, config: Config) -> Solution:
    """The vector of least residual in each Krylov space, from zero; SciPy's is ``scipy.sparse.linalg.minres``.

    The residual never grows, so no solve diverges. For a singular system the result is a least-squares solution, whose
    residual stays large.

    Source: Paige and Saunders 1975, SIAM J. Numer. Anal. 12(4), Section 6.
    """
    x, size, start = zeros_like(system.rhs), norm(system.rhs), system.products
    if size == 0:
        return Solution(x, 0.0, 0, "converged")
    rounding = max(torch.finfo(tensor.dtype).eps for tensor in system.rhs.values())
    v, v_before = scaled(system.rhs, 1 / size), x
    d, d_before = x, x
    beta, residual, relative = 0.0, size, 1.0
    (cosine, sine), (cosine_before, sine_before) = (1.0, 0.0), (1.0, 0.0)
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(config.steps):
        # One Lanczos step: A v_k = β_k v_{k−1} + α_k v_k + β_{k+1} v_{k+1}.
        w = add(system.matvec(v), v_before, -beta)
        alpha = float(dot(v, w))
        w = add(w, v, -alpha)
        beta_next = norm(w)
        if not math.isfinite(alpha + beta_next):
            relative = math.nan
            break
        diagonal.append(alpha)
        beside.append(beta_next)
        # Apply the last two rotations to the tridiagonal matrix's new column, then one that removes β_{k+1}.
        above_two, turned = sine_before * beta, cosine_before * beta
        above, corner = cosine * turned + sine * alpha, cosine * alpha - sine * turned
        scale = max(map(abs, diagonal + beside))
        # ‖Ar‖ ≤ rtol ‖A‖ ‖r‖: A is singular to this tolerance, and x the least-squares solution.
        if math.hypot(corner, cosine * beta_next) <= max(config.rtol, rounding) * scale:
            break
        pivot = math.hypot(corner, beta_next)
        (cosine_before, sine_before), (cosine, sine) = (cosine, sine), (corner / pivot, beta_next / pivot)
        d, d_before = scaled(add(add(v, d_before, -above_two), d, -above), 1 / pivot), d
        x = add(x, d, residual * cosine)
        residual = -sine * residual
        relative = abs(residual) / size
        if not relative > config.rtol or beta_next <= rounding * scale:
            break
        v, v_before, beta = scaled(w, 1 / beta_next), v, beta_next
    return Solution.of(x, relative, system.products - start, config.rtol, tridiagonal_extremes(diagonal, beside))
