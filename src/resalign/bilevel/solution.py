"""The linear system of a hypergradient, and what a solver of it returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from resalign.lazy import torch
from resalign.tensors.named import Named, add
from resalign.tensors.steps import DivergenceError

Product = Callable[[Mapping[str, "torch.Tensor"]], dict[str, "torch.Tensor"]]
State = Literal["first_order", "converged", "max_steps", "diverged"]


class System:
    """(I + γH) x = g, H symmetric and known by its products alone; counts them.

    Attributes:
        rhs: g.
        gamma: γ.
        products: Products with H taken so far.
    """

    def __init__(self, hvp: Product, rhs: Named, gamma: float) -> None:
        """Takes v ↦ Hv, g and γ.

        Raises:
            DivergenceError: If g is not finite: no solver can mend that.
        """
        if not all(bool(torch.isfinite(tensor).all()) for tensor in rhs.values()):
            raise DivergenceError("the right-hand side of the hypergradient's system, ∇L_harm(θ*), is not finite")
        self._hvp, self.rhs, self.gamma, self.products = hvp, rhs, gamma, 0

    def matvec(self, v: Named) -> dict[str, torch.Tensor]:
        """(I + γH) v."""
        self.products += 1
        return add(v, self._hvp(v), self.gamma)


@dataclass(frozen=True)
class Solution:
    """An approximate solution of (I + γH) x = g.

    Attributes:
        x: The solution.
        relative_residual: ‖g − (I + γH)x‖ / ‖g‖ of this x (0 for g = 0); NaN where the solver does not measure it.
        products: Products with H that the solve cost, the one for the residual included.
        state: ``converged`` to the solver's tolerance; ``max_steps``, stopped at its last step; ``diverged``, with a
            residual above that of x = 0 or none that is finite; ``first_order``, nothing was solved.
        curvature: Estimates of (γλ_min, γλ_max) of H from the solver's own products: Ritz values, which lie inside
            the spectrum; NaN without products.
    """

    x: dict[str, torch.Tensor]
    relative_residual: float
    products: int
    state: State
    curvature: tuple[float, float] = (math.nan, math.nan)


def state_of(relative_residual: float, rtol: float) -> State:
    """How a solve that ended at a residual went."""
    if not relative_residual <= 1:  # NaN included
        return "diverged"
    return "converged" if relative_residual <= rtol else "max_steps"
