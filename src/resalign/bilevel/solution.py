"""The linear system of a hypergradient, with the result of solving it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from resalign.lazy import torch
from resalign.tensors.params import Params, add, norm
from resalign.tensors.recording import Product
from resalign.tensors.steps import DivergenceError

State = Literal["first_order", "converged", "max_steps", "diverged"]
UNSEEN = (math.nan, math.nan)  # extreme Ritz values of a solver whose products say nothing of them


class Example(NamedTuple):
    """One of the examples whose losses make up L_FT = Σ w_i ℓ_i, at one point.

    Attributes:
        loss: ℓ_i, the mean square of a residual.
        gradient: ∇ℓ_i, by name.
        share: w_i.
        elements: d, the numbers that the residual has.
    """

    loss: float
    gradient: Params
    share: float
    elements: int


class System:
    """(I + γH) x = g, with H symmetric and known by its products, which are counted, and by examples where there are.

    Attributes:
        hvp: v ↦ Hv, uncounted.
        rhs: g.
        gamma: γ.
        examples: Measures them; None where L_FT is known as a whole only.
        parts: Shapes of the tensors by name that the one tensor of ``rhs`` consists of; None where ``rhs`` has names.
        products: Products with H taken so far.
    """

    def __init__(
        self,
        hvp: Product,
        rhs: Params,
        gamma: float,
        examples: Callable[[], list[Example]] | None = None,
        parts: Mapping[str, torch.Size] | None = None,
    ) -> None:
        """Takes v ↦ Hv, g, γ, the examples and the parts.

        Raises:
            DivergenceError: If g is not finite: no solver can mend that.
        """
        if not all(bool(torch.isfinite(tensor).all()) for tensor in rhs.values()):
            raise DivergenceError("the right-hand side of the hypergradient's system, ∇L_harm(θ*), is not finite")
        self.hvp, self.rhs, self.gamma, self.examples, self.parts, self.products = hvp, rhs, gamma, examples, parts, 0

    def matvec(self, v: Params) -> dict[str, torch.Tensor]:
        """(I + γH) v."""
        self.products += 1
        return add(v, self.hvp(v), self.gamma)


@dataclass(frozen=True)
class Solution:
    """An approximate solution of (I + γH) x = g.

    Attributes:
        x: The solution.
        relative_residual: ‖g − (I + γH)x‖ / ‖g‖ of this x (0 for g = 0), or of the iterate before it by
            `richardson` with `residual: before`; NaN where the solver does not measure it.
        products: Products with H that the solve cost, the one for the residual included.
        state: ``converged`` to the solver's tolerance; ``max_steps``, stopped at its last step; ``diverged``, with a
            residual above that of x = 0 or none that is finite; ``first_order``, nothing was solved.
        curvature: Estimates of (γλ_min, γλ_max) of H from the solver's own products: Ritz values, which lie inside
            the spectrum; NaN where the products do not show them.
    """

    x: dict[str, torch.Tensor]
    relative_residual: float
    products: int
    state: State
    curvature: tuple[float, float] = (math.nan, math.nan)

    @classmethod
    def of(
        cls, x: dict[str, torch.Tensor], relative: float, products: int, rtol: float, extremes: tuple[float, float]
    ) -> Solution:
        """The solution of a solver that stopped at a relative residual, from extreme Ritz values of I + γH."""
        state: State = "converged" if relative <= rtol else "max_steps"
        if not relative <= 1:  # NaN included
            state = "diverged"
        return cls(x, relative, products, state, (extremes[0] - 1, extremes[1] - 1))


class Residual:
    """g − (I + γH) x of an iterate that starts at zero: updated by the product of each step, never recomputed.

    Attributes:
        relative: ‖g − (I + γH) x‖ / ‖g‖; 0 for g = 0.
    """

    def __init__(self, system: System) -> None:
        """Starts at x = 0, whose residual is g."""
        self._system, self._vector, self._before = system, dict(system.rhs), system.products
        self._size = norm(system.rhs)
        self.relative = 1.0 if self._size else 0.0

    def matvec(self, step: Params) -> dict[str, torch.Tensor]:
        """(I + γH) step, by which the residual of x + step differs from that of x."""
        product = self._system.matvec(step)
        self._vector = add(self._vector, product, -1.0)
        self.relative = norm(self._vector) / self._size
        return product

    def solution(self, x: dict[str, torch.Tensor], rtol: float, extremes: tuple[float, float]) -> Solution:
        """X with its record; ``extremes`` are the extreme Ritz values of I + γH."""
        return Solution.of(x, self.relative, self._system.products - self._before, rtol, extremes)
