"""The hypergradient of a loss through one simulated fine-tuning, with its settings and log."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from resalign.bilevel.envelope import matched
from resalign.bilevel.hvp import Mode
from resalign.bilevel.hypergradient import FineTuned, Gamma, Hypergradient, exact_hypergradient, merged_hypergradient
from resalign.bilevel.relaxation import under_relaxed
from resalign.bilevel.solving import SolverConfig, default_solver, gradient_passes, solve, solver_module
from resalign.config.strict import Strict
from resalign.diffusion.parametrisation import Trained
from resalign.lazy import torch
from resalign.objectives.simulation import Simulation, SimulationConfig
from resalign.tensors.losses import Loss
from resalign.tensors.params import Params, norm


class HypergradientConfig(Strict):
    """Published: γ = 1, K = 5 Richardson steps [ResAlign, Section 4.1]."""

    through: Literal["envelope", "steps"] = Field(
        "envelope",
        description="what is differentiated: the envelope's minimum, as published; steps: every simulated step, on its "
        "own batch, so that γ, solver and hessian_batch_size do nothing",
    )
    gamma: Annotated[float, Field(gt=0)] | Literal["matched"] = Field(
        1.0, description="γ of the Moreau envelope; matched: Σ lr of each draw's SGD, else −‖Δ‖²/⟨∇L_FT(θ*), Δ⟩"
    )
    gamma_unmatched: float | None = Field(
        None, gt=0, description="γ of a draw that overshot, so that no γ matches it; null raises there"
    )
    solver: SolverConfig = Field(default_factory=default_solver, description="its name, or name and settings")
    mapping: Literal["exact", "merged"] = Field(
        "exact", description="of a draw that trains a part: exact, through its variables; merged, printed: as if all"
    )
    hessian_batch_size: int = Field(8, gt=0, description="(image, noise, stratified timestep) over which H is taken")
    hessian_products: Mode = "exact"
    on_divergence: Literal["raise", "damp", "reject"] = Field(
        "raise",
        description="damp halves the relaxation of a solve that diverged; reject, released, also that of a draw whose "
        "gradient is too long, on a new batch each time, and in the end leaves the draw its direct gradient alone",
    )
    max_residual: float = Field(
        1.0,
        gt=0,
        description="relative residual above which a solve counts as diverged; not of reject; with `residual: "
        "before` of the iterate before the last",
    )
    max_draw_norm: float | None = Field(
        None, gt=0, description="of reject: norm of a draw's gradient in the outer variables; released: 0.2"
    )
    max_damping: int = Field(6, gt=0, description="halvings of the relaxation before giving up; released: 5")
    simulation: SimulationConfig = SimulationConfig()

    @model_validator(mode="after")
    def _only_relaxation_damps(self) -> HypergradientConfig:
        if self.on_divergence != "raise" and not hasattr(self.solver, "relaxation"):
            name = solver_module(self.solver)
            raise ValueError(f"on_divergence: {self.on_divergence} lowers a relaxation, which {name} has not")
        if self.max_draw_norm is not None and self.on_divergence != "reject":
            raise ValueError(f"max_draw_norm is for on_divergence: reject, got {self.on_divergence}")
        if self.gamma_unmatched is not None and self.gamma != "matched":
            raise ValueError(f"gamma_unmatched is for gamma: matched, got gamma {self.gamma}")
        return self

    @model_validator(mode="after")
    def _steps_can_be_differentiated(self) -> HypergradientConfig:
        drawn = self.simulation
        kinds = {*drawn.adaptation, *drawn.optimizer} | {c.adaptation for c in drawn.configurations}
        if self.through == "steps" and (drawn.configurations or not kinds <= {"full", "sgd", "adam"}):
            raise ValueError(
                "through: steps is for draws that train all weights by sgd or adam, without simulation.configurations; "
                f"got {sorted(kinds)}"
            )
        if self.through == "steps" and self.on_divergence != "raise":
            raise ValueError(f"through: steps has no solve for on_divergence: {self.on_divergence} to damp")
        return self

    @property
    def hypergradient_passes(self) -> float:
        """With a gradient, of a draw's fine-tuning and hypergradient in the mean, but that of the outer loss."""
        simulated, exact = self.simulation.denoiser_passes, self.hessian_products == "exact"
        alone = 3 if exact else 2  # a product that shares no graph
        if self.through == "steps":  # going back, a product each, and Adam's gradient once more
            optimizers = self.simulation.optimizer
            return simulated * (1 + alone + optimizers.count("adam") / len(optimizers))
        # The envelope's gradient, by which exact products begin, too, unless γ has to wait for it.
        first = 1 + self._share_of_measured_gammas * (exact and gradient_passes(self.solver, 1) > 0)
        an_example = gradient_passes(self.solver, 2) + alone * self._share_of_mixed_blocks + first
        return simulated + an_example * self.hessian_batch_size * self.simulation.losses_a_step

    @property
    def _share_of_measured_gammas(self) -> float:
        """Of draws, those whose γ is measured; that of gradient descent follows from its settings."""
        drawn = [c.optimizer for c in self.simulation.configurations] or self.simulation.optimizer
        return sum(name != "sgd" for name in drawn) / len(drawn) if self.gamma == "matched" else 0.0

    @property
    def _share_of_mixed_blocks(self) -> float:
        """Of draws, those whose hypergradient takes a product with the mixed block."""
        if self.mapping == "merged" or solver_module(self.solver).endswith(".identity"):
            return 0.0
        drawn = [c.adaptation for c in self.simulation.configurations] or self.simulation.adaptation
        return sum(name in ("attention", "lora") for name in drawn) / len(drawn)

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules that this configuration runs besides what the method imports by name."""
        return (solver_module(self.solver),)


def simulated_hypergradient(
    config: HypergradientConfig,
    simulation: Simulation,
    theta: Params,
    outer_loss: Loss,
    *,
    outer: Trained | None = None,
    state: dict[str, Any] | None = None,
    draw_norm: Callable[[Params], float] = norm,
    where: str,
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Fine-tunes θ as ``simulation`` and differentiates the outer loss through it [ResAlign, Alg. 2, lines 7 and 8].

    Args:
        config: How the linear system is set up and solved.
        simulation: The draw (D_FT, C).
        theta: θ, detached; left untouched.
        outer_loss: Loss as a function of the weights after fine-tuning.
        outer: The outer variables φ, for a draw in their coordinates.
        state: The inner optimizer's, see :func:`resalign.bilevel.adaptation.adapt`.
        draw_norm: Norm of the whole gradient to which the hypergradient of the draw contributes; of ``reject``.
        where: Name of the estimate, for messages.

    Returns:
        d outer_loss(θ*) / dθ, or / dφ of a draw that ``is_outer``, and the quantities to log; zero at a ``relaxation``
        of 0 if it was rejected for good.

    Raises:
        DivergenceError: If the fine-tuning diverges, or the solve and ``on_divergence`` does not allow for it.
    """
    drawn = {"inner_lr": simulation.lr, "inner_steps": simulation.steps, "inner_lora": simulation.adaptation == "lora"}
    if config.through == "steps":
        _, value = simulation.differentiated(outer_loss, theta, config.hessian_products)
        return value, {**drawn, "hypergradient_norm": norm(value), "hessian_products": simulation.steps}
    tuned = simulation.run(theta, hessian_batch_size=config.hessian_batch_size, outer=outer, state=state)
    is_merged = config.mapping == "merged" or simulation.adaptation == "full" or simulation.is_outer
    hypergradient = merged_hypergradient if is_merged else exact_hypergradient
    gamma, mode, rejects = _gamma(config, tuned), config.hessian_products, config.on_divergence == "reject"
    loss = outer.loss_at(outer_loss) if simulation.is_outer and outer else outer_loss

    def estimated(solver: SolverConfig) -> Hypergradient:
        nonlocal tuned
        if rejects and solver is not config.solver:
            tuned = replace(tuned, **simulation.frozen(config.hessian_batch_size, outer))
        return hypergradient(loss, tuned, gamma=gamma, solve=partial(solve, config=solver), mode=mode)

    estimate, relaxation = under_relaxed(
        estimated,
        config.solver,
        is_accepted=partial(_is_accepted, config, draw_norm),
        halvings=0 if config.on_divergence == "raise" else config.max_damping,
        is_replaced=rejects,
        where=f"{where} ({simulation})",
    )
    return estimate.value, {**drawn, "inner_loss": tuned.losses[-1], **_logged(estimate), "relaxation": relaxation}


def _is_accepted(config: HypergradientConfig, draw_norm: Callable[[Params], float], found: Hypergradient) -> bool:
    """Whether an estimate is finite, and solved; of ``reject``: short enough, by a solve that did not diverge."""
    solution = found.solution
    if config.on_divergence == "reject":
        size = draw_norm(found.value)
        return math.isfinite(size) and size <= (config.max_draw_norm or math.inf) and solution.state != "diverged"
    is_solved = solution.state == "first_order" or solution.relative_residual <= config.max_residual
    return math.isfinite(norm(found.value)) and is_solved


def _gamma(config: HypergradientConfig, tuned: FineTuned) -> Gamma:
    """γ of one draw; ``matched`` prefers the γ that follows from the fine-tuning's settings to the measured one."""
    if config.gamma != "matched":
        return config.gamma
    return tuned.gamma_hint or partial(matched, unmatched=config.gamma_unmatched)


def _logged(estimate: Hypergradient) -> dict[str, float]:
    """Quantities of one draw's hypergradient, without those that were not measured, as a first-order residual."""
    envelope, (low, high) = estimate.envelope, estimate.solution.curvature
    quantities = {
        "hypergradient_norm": norm(estimate.value),
        "first_order_norm": estimate.first_order_norm,
        "gamma": estimate.gamma,
        "matched_gamma": envelope.matched_gamma,
        "stationarity": envelope.stationarity(estimate.gamma),
        "inner_gradient_norm": envelope.gradient_norm,
        "relative_residual": estimate.solution.relative_residual,
        "hessian_products": estimate.products,
        "smallest_curvature": low,
        "largest_curvature": high,
    }
    return {quantity: value for quantity, value in quantities.items() if not math.isnan(value)}
