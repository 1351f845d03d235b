"""First order: x = g, as if the fine-tuning had no curvature."""

from __future__ import annotations

import math

from resalign.bilevel.solution import Matvec, Solution
from resalign.config.strict import Strict
from resalign.tensors.named import Named


class Config(Strict):
    """The first-order estimate has no settings."""


def solve(matvec: Matvec, rhs: Named, config: Config) -> Solution:
    """Returns the right-hand side itself.

    Source: FOMAML, Finn 2017, arXiv 1703.03400, Section 5.2; the first Richardson iterate of [ResAlign, Alg. 1].
    """
    return Solution(dict(rhs), relative_residual=math.nan, products=0)
