"""The hypergradient of a loss through one simulated fine-tuning, with its settings and what is logged of it."""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Literal

from pydantic import Field, model_validator

from resalign.bilevel.damping import damped
from resalign.bilevel.envelope import matched
from resalign.bilevel.hvp import Loss, Mode
from resalign.bilevel.hypergradient import Gamma, Hypergradient, exact_hypergradient, merged_hypergradient
from resalign.bilevel.solving import SolverConfig, default_solver, solve, solver_module
from resalign.config.strict import Strict
from resalign.diffusion.precision import in_float32
from resalign.objectives.simulation import Simulation, SimulationConfig
from resalign.tensors.named import Named, norm


class HypergradientConfig(Strict):
    """Published: γ = 1, K = 5 Richardson steps [ResAlign, Section 4.1]."""

    gamma: Annotated[float, Field(gt=0)] | Literal["matched"] = Field(
        1.0, description="γ of the Moreau envelope; matched: Σ lr of each draw's SGD, else −‖Δ‖²/⟨∇L_FT(θ*), Δ⟩"
    )
    gamma_unmatched: float | None = Field(
        None, gt=0, description="γ of a draw that overshot, so that no γ matches it; null raises there"
    )
    solver: SolverConfig = Field(default_factory=default_solver, description="its name, or name and settings")
    mapping: Literal["exact", "merged"] = "exact"
    hessian_batch_size: int = Field(8, gt=0, description="(image, noise, stratified timestep) over which H is taken")
    hessian_products: Mode = "exact"
    on_divergence: Literal["raise", "damp"] = "raise"
    max_residual: float = Field(1.0, gt=0, description="relative residual above which a solve counts as diverged")
    max_damping: int = Field(6, gt=0, description="halvings of the relaxation before giving up")
    simulation: SimulationConfig = SimulationConfig()

    @model_validator(mode="after")
    def _only_relaxation_damps(self) -> HypergradientConfig:
        if self.on_divergence == "damp" and not hasattr(self.solver, "relaxation"):
            raise ValueError(f"on_divergence: damp lowers a relaxation, which {solver_module(self.solver)} has not")
        if self.gamma_unmatched is not None and self.gamma != "matched":
            raise ValueError(f"gamma_unmatched is for gamma: matched, got gamma {self.gamma}")
        return self

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules that this configuration runs besides what the method imports by name."""
        return (solver_module(self.solver),)


def simulated_hypergradient(
    config: HypergradientConfig, simulated: Simulation, theta: Named, outer_loss: Loss, *, where: str
) -> tuple[Hypergradient, dict[str, float]]:
    """Fine-tunes θ as ``simulated`` and differentiates the outer loss through it [ResAlign, Alg. 2, lines 7 and 8].

    Args:
        config: How the linear system is set up and solved.
        simulated: The draw (D_FT, C).
        theta: θ, detached; left untouched.
        outer_loss: Of the weights after fine-tuning.
        where: What is estimated, for messages.

    Returns:
        d outer_loss(θ*) / dθ, and what is logged of it.

    Raises:
        DivergenceError: If the fine-tuning or the solve diverges, and ``on_divergence`` is ``raise``.
    """
    tuned = simulated.parametrisation(theta)
    start, adapted, losses = simulated.fine_tune(theta, tuned)
    frozen = in_float32(simulated.objective(config.hessian_batch_size, stratified=True))
    gamma, mode = _gamma(config, simulated), config.hessian_products

    def estimate(solver: SolverConfig) -> Hypergradient:
        bound = partial(solve, config=solver)
        if config.mapping == "merged" or simulated.adaptation == "full":
            merged = tuned.weights(theta, adapted)
            return merged_hypergradient(outer_loss, frozen, theta, merged, gamma=gamma, solve=bound, mode=mode)
        return exact_hypergradient(
            outer_loss, frozen, theta, start, adapted, tuned.weights, gamma=gamma, solve=bound, mode=mode
        )

    found, relaxation = damped(
        estimate,
        config.solver,
        max_residual=config.max_residual,
        halvings=config.max_damping if config.on_divergence == "damp" else 0,
        where=f"{where} ({simulated})",
    )
    drawn = {"inner_lr": simulated.lr, "inner_steps": simulated.steps, "inner_lora": simulated.adaptation == "lora"}
    return found, {**drawn, "inner_loss": losses[-1], **_measured(found), "relaxation": relaxation}


def _gamma(config: HypergradientConfig, simulated: Simulation) -> Gamma:
    """γ of one draw: T steps of gradient descent at a rate η are a proximal step of γ = Tη [to first order]."""
    if config.gamma != "matched":
        return config.gamma
    if simulated.optimizer == "sgd":
        return simulated.lr * simulated.steps
    return partial(matched, unmatched=config.gamma_unmatched)


def _measured(estimate: Hypergradient) -> dict[str, float]:
    """What is logged of each draw's hypergradient; what was not measured, as a first-order residual, has no row."""
    low, high = estimate.solution.curvature
    found = {
        "hypergradient_norm": norm(estimate.value),
        "first_order_norm": estimate.first_order_norm,
        "gamma": estimate.gamma,
        "matched_gamma": estimate.envelope.matched_gamma,
        "stationarity": estimate.envelope.stationarity(estimate.gamma),
        "slope_norm": estimate.envelope.slope_norm,
        "relative_residual": estimate.solution.relative_residual,
        "hessian_products": estimate.products,
        "smallest_curvature": low,
        "largest_curvature": high,
    }
    return {quantity: value for quantity, value in found.items() if not math.isnan(value)}
