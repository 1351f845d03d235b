"""First order: x = g, as if the fine-tuning had no curvature."""

from __future__ import annotations

import math
from typing import Literal

from resalign.bilevel.solution import Solution, System
from resalign.config.strict import Strict


class Config(Strict):
    """The first-order estimate has no settings."""

    name: Literal["identity"] = "identity"

    @property
    def products(self) -> int:
        """None."""
        return 0


def solve(system: System, config: Config) -> Solution:
    """Returns the right-hand side itself.

    Source: FOMAML, Finn 2017, arXiv 1703.03400, Section 5.2; the first Richardson iterate of [ResAlign, Alg. 1].
    """
    return Solution(dict(system.rhs), relative_residual=math.nan, products=0, state="first_order")
