"""Nyström's approximation of H from products with a random sketch, and the inverse of I + γH by Woodbury's formula."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from resalign.bilevel.solution import UNSEEN, Residual, Solution, System
from resalign.config.strict import Strict
from resalign.lazy import torch
from resalign.tensors.params import shapes_of, stacked, unstacked
from resalign.tensors.seeds import generator


class Config(Strict):
    """As many products as the published Richardson iteration: four for the sketch, and one for the residual."""

    name: Literal["nystrom"] = "nystrom"
    sketch: int = Field(4, ge=1, description="k columns of the sketch, a product each; 4k arrays of weights are held")
    sketch_seed: int = Field(0, description="of the sketch, which is the same in every solve")
    rtol: float = Field(1e-2, ge=0, description="relative residual up to which the solve counts as converged")

    @property
    def products(self) -> int:
        """Of a solve that does not stop early."""
        return self.sketch + 1


def solve(system: System, config: Config) -> Solution:
    """Takes x = g − Y(C + YᵀY)⁺Yᵀg, Y = γHΩ, C = ΩᵀY, Ω orthonormal: exact if H ⪰ 0 has rank k at most.

    A network's H is indefinite and has a higher rank: the approximation may be far off, and where H has a flat spectrum
    of both signs the result may be longer than x by any factor. So the residual is measured, by a product more. The
    sketch is drawn on the CPU in every solve, the same each time; of γH it sees no extreme eigenvalue.

    Source: Frangella 2021, arXiv 2110.02820, Section 2, for the sketch; Hataya 2023, AISTATS, arXiv 2302.09726, who
    samples columns of H, for its use in a hypergradient.
    """
    shapes, start = shapes_of(system.rhs), system.products
    g = stacked(system.rhs)
    stream = generator("nystrom", config.sketch_seed)
    drawn = torch.randn(len(g), min(config.sketch, len(g)), generator=stream, dtype=g.dtype)
    omega = torch.linalg.qr(drawn.to(g.device)).Q.T.contiguous()
    curved = torch.stack([stacked(system.matvec(unstacked(column, shapes))) - column for column in omega])
    core = (omega @ curved.T).double()
    core = (core + core.T) / 2
    if not torch.isfinite(curved).all():
        return Solution.of(dict(system.rhs), math.nan, system.products - start, config.rtol, UNSEEN)
    inner = core + (curved @ curved.T).double()
    rounding = torch.finfo(g.dtype).eps * len(core)
    weights = torch.linalg.pinv(inner, rtol=rounding, hermitian=True) @ (curved @ g).double()
    x = unstacked(g - weights.to(g) @ curved, shapes)
    residual = Residual(system)
    if residual.relative:
        residual.matvec(x)
    return Solution.of(x, residual.relative, system.products - start, config.rtol, UNSEEN)
