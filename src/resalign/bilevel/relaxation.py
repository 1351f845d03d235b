"""Under-relaxation of a hypergradient whose linear solve diverges."""

from __future__ import annotations

import math
from collections.abc import Callable

from resalign.bilevel.hypergradient import Hypergradient
from resalign.bilevel.solving import SolverConfig
from resalign.tensors.params import norm
from resalign.tensors.steps import DivergenceError
from resalign.tracking import log


def under_relaxed(
    estimate: Callable[[SolverConfig], Hypergradient],
    solver: SolverConfig,
    *,
    max_residual: float,
    halvings: int,
    where: str,
) -> tuple[Hypergradient, float]:
    """Estimates a hypergradient, halving the solver's relaxation ω (which raises K) until the solve does not diverge.

    Args:
        estimate: The hypergradient by a given solver.
        solver: The solver of the first attempt; only one with a field ``relaxation`` can be retried.
        max_residual: Relative residual above which a solve counts as diverged.
        halvings: Most halvings of the relaxation; 0 for none.
        where: Name of the estimate, for messages.

    Returns:
        The estimate and its relaxation, 1 for a solver without one.

    Raises:
        DivergenceError: If the estimate is not finite or its residual too large, and no halving is left.
    """
    relaxation, left = getattr(solver, "relaxation", 1.0), halvings
    while True:
        result = estimate(solver)
        residual = result.solution.relative_residual
        solved = result.solution.state == "first_order" or residual <= max_residual
        if math.isfinite(norm(result.value)) and solved:
            return result, relaxation
        state = f"relative residual {residual:.3g} at relaxation {relaxation:g}, γ {result.gamma:g}"
        if not left:
            remedy = "lower gamma" if halvings else "lower gamma, or set on_divergence: damp"
            raise DivergenceError(f"hypergradient of {where}: {state}; {remedy}")
        relaxation, left = relaxation / 2, left - 1
        solver = solver.model_copy(update={"relaxation": relaxation})
        log.warning("hypergradient of %s: %s; retrying at relaxation %g", where, state, relaxation)
