"""ResAlign: unlearning that stays, by descending through simulated fine-tuning.

Source: Li 2025, NeurIPS, Algorithms 1 and 2. The published configuration is the default; what the released code does
otherwise (LoRA outer weights, AdamW, gradient clipping, truncation) is a field.
"""

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
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.models import Models
from resalign.diffusion.parametrisation import Direct, Parametrisation, Scope, lora, named_weights, pull_back, select
from resalign.diffusion.precision import in_float32
from resalign.lazy import torch
from resalign.objectives.denoising import harmful_loss
from resalign.objectives.distillation import distillation_loss
from resalign.objectives.simulation import Simulation, SimulationConfig
from resalign.tensors.named import Named, add, detached, gradient, norm
from resalign.tensors.steps import apply_gradients


class Config(Strict):
    """Published defaults [ResAlign, Section 4.1]; J is not published, 3 is the released code's."""

    steps: int = Field(120, gt=0, description="I, outer steps")
    lr: float = Field(2e-4, gt=0)
    optimizer: Literal["sgd", "adamw"] = "adamw"
    weight_decay: float = Field(1e-2, ge=0)
    alpha: float = Field(1.0, ge=0, description="weight of the distillation term R")
    beta: float = Field(0.8, ge=0, description="weight of the harmful loss after simulated fine-tuning")
    gamma: Annotated[float, Field(gt=0)] | Literal["matched"] = Field(
        1.0, description="γ of the Moreau envelope; matched: Σ lr of each draw's SGD, else −‖Δ‖²/⟨∇L_FT(θ*), Δ⟩"
    )
    gamma_unmatched: float | None = Field(
        None, gt=0, description="γ of a draw that overshot, so that no γ matches it; null raises there"
    )
    draws: int = Field(3, gt=0, description="J, simulated fine-tunings in each outer step")
    batch_size: int = Field(1, gt=0)
    retain_batch_size: int = Field(4, gt=0)
    trained: Literal["full", "attention", "lora"] = "full"
    lora_rank: int = Field(4, gt=0)
    max_grad_norm: float | None = Field(0.2, gt=0)
    truncation: float | None = Field(None, gt=0, description="cap of the harmful error; null for none, as published")
    solver: SolverConfig = Field(default_factory=default_solver, description="its name, or name and settings")
    mapping: Literal["exact", "merged"] = "exact"
    hessian_batch_size: int = Field(8, gt=0, description="(image, noise, stratified timestep) over which H is taken")
    hessian_products: Mode = "exact"
    on_divergence: Literal["raise", "damp"] = "raise"
    max_residual: float = Field(1.0, gt=0, description="relative residual above which a solve counts as diverged")
    max_damping: int = Field(6, gt=0, description="halvings of the relaxation before giving up")
    simulation: SimulationConfig = SimulationConfig()

    @model_validator(mode="after")
    def _only_relaxation_damps(self) -> Config:
        if self.on_divergence == "damp" and not hasattr(self.solver, "relaxation"):
            raise ValueError(f"on_divergence: damp lowers a relaxation, which {solver_module(self.solver)} has not")
        if self.gamma_unmatched is not None and self.gamma != "matched":
            raise ValueError(f"gamma_unmatched is for gamma: matched, got gamma {self.gamma}")
        return self

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules that this configuration runs besides what the method imports by name."""
        return (solver_module(self.solver),)


def unlearn(models: Models, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Algorithm 2.

    Returns:
        The changed weights, by their names in a weight file.

    Raises:
        DivergenceError: If a loss or gradient is not finite, or a solve diverges and ``on_divergence`` is ``raise``.
    """
    denoiser, original = models.denoiser, named_weights(models.denoiser)
    outer = _outer_parametrisation(config, original)
    variables = detached(outer.initial(original, run.generator("resalign", "outer")), requires_grad=True)
    kinds = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    optimizer = kinds[config.optimizer](list(variables.values()), lr=config.lr, weight_decay=config.weight_decay)
    stream = run.generator("resalign", "batches")
    for i in run.steps(range(config.steps), variables=variables, optimizer=optimizer, stream=stream):
        harmful_batch = data.forget.draw(config.batch_size, stream)
        retain_batch = data.retain.draw(config.retain_batch_size, stream)
        weights = outer.weights(original, variables)
        # (1 − β)∇L_harm(θ_i) + α∇R(θ_i) [Alg. 2, line 4]
        harmful = harmful_loss(denoiser, weights, harmful_batch, config.truncation)
        retain = distillation_loss(denoiser, weights, original, retain_batch)
        total = gradient((1 - config.beta) * harmful + config.alpha * retain, variables)
        theta = detached(weights)
        for j in range(config.draws if config.beta else 0):
            # D_FT ∼ D, C ∼ π(C); θ* = Adapt(θ_i, D_FT, C); the hypergradient x_j [Alg. 2, lines 6 to 8]
            streams = run.generator("resalign", "simulation", i, j), run.generator("resalign", "fixed data")
            simulated = Simulation(denoiser, data.pool, data.retain, config.simulation, *streams)
            outer_loss = partial(harmful_loss, denoiser, batch=harmful_batch, truncation=config.truncation)
            estimate, logged = _hypergradient(config, simulated, theta, outer_loss, where=f"outer step {i}, draw {j}")
            total = add(total, pull_back(outer, original, variables, estimate.value), config.beta / config.draws)
            run.history.record(i, **logged)
        for name, variable in variables.items():
            variable.grad = total[name]
        grad_norm = apply_gradients(optimizer, config.max_grad_norm, what=f"resalign at outer step {i}")
        run.history.record(i, harmful_loss=harmful.item(), retain_loss=retain.item(), grad_norm=grad_norm)
    final = detached(outer.weights(original, variables))
    return models.named({name: tensor for name, tensor in final.items() if not torch.equal(tensor, original[name])})


def _outer_parametrisation(config: Config, weights: Named) -> Parametrisation:
    """The trained weights; the low-rank initial deviations are the released code's."""
    if config.trained == "lora":
        return lora(weights, config.lora_rank, down_std=0.008, up_std=0.002)
    scope: Scope = "full" if config.trained == "full" else "attention"
    return Direct(tuple(select(weights, scope)))


def _hypergradient(
    config: Config, simulated: Simulation, theta: Named, outer_loss: Loss, *, where: str
) -> tuple[Hypergradient, dict[str, float]]:
    """Fine-tunes θ as ``simulated`` and differentiates the outer loss through it; returns what is logged, too."""
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


def _gamma(config: Config, simulated: Simulation) -> Gamma:
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
