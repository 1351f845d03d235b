"""Under-relaxation of a hypergradient whose linear solve diverges."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from resalign.bilevel.hypergradient import Hypergradient
from resalign.bilevel.solving import SolverConfig
from resalign.tensors.params import zeros_like
from resalign.tensors.steps import DivergenceError
from resalign.tracking import log


def under_relaxed(
    estimate: Callable[[SolverConfig], Hypergradient],
    solver: SolverConfig,
    *,
    is_accepted: Callable[[Hypergradient], bool],
    halvings: int,
    is_replaced: bool = False,
    where: str,
) -> tuple[Hypergradient, float]:
    """Estimates a hypergradient, halving the solver's relaxation ω until the estimate is accepted.

    Args:
        estimate: The hypergradient by a given solver; the first attempt is made by ``solver`` itself.
        solver: The solver of the first attempt; only one with a field ``relaxation`` can be retried.
        is_accepted: Whether an estimate will do.
        halvings: Most halvings of the relaxation; 0 for none.
        is_replaced: Whether zero takes the place of an estimate that is not accepted after the last halving.
        where: Name of the estimate, for messages.

    Returns:
        The estimate and its relaxation: 1 for a solver without one, 0 for an estimate that was replaced by zero.

    Raises:
        DivergenceError: If no estimate is accepted, no halving is left, and nothing replaces it.
    """
    relaxation, left = getattr(solver, "relaxation", 1.0), halvings
    while True:
        result = estimate(solver)
        if is_accepted(result):
            return result, relaxation
        residual = result.solution.relative_residual
        state = f"relative residual {residual:.3g} at relaxation {relaxation:g}, γ {result.gamma:g}"
        if not left and is_replaced:
            return replace(result, value=zeros_like(result.value)), 0.0
        if not left:
            other = "on_divergence: damp" if hasattr(solver, "relaxation") else "solver: minres"
            remedy = "lower gamma" if halvings else f"lower gamma, or set {other}"
            raise DivergenceError(f"hypergradient of {where}: {state}; {remedy}")
        relaxation, left = relaxation / 2, left - 1
        solver = solver.model_copy(update={"relaxation": relaxation})
        level = logging.INFO if is_replaced else logging.WARNING  # who expects rejections counts them
        log.log(level, "hypergradient of %s: %s; retrying at relaxation %g", where, state, relaxation)
