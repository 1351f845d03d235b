"""ResAlign: unlearning that stays, by descending through simulated fine-tuning.

Source: Li 2025, NeurIPS, Algorithms 1 and 2. The published configuration is the default; what the released code does
otherwise (LoRA outer weights, AdamW, gradient clipping, truncation) is a field.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, TypeVar

from pydantic import Field, model_validator

from resalign.bilevel.adaptation import adapt
from resalign.bilevel.envelope import matched
from resalign.bilevel.hvp import Loss, Mode
from resalign.bilevel.hypergradient import Gamma, Hypergradient, exact_hypergradient, merged_hypergradient
from resalign.bilevel.solving import SolverConfig, default_solver, solve, solver_module
from resalign.config.strict import Strict
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.batches import EncodedImages, NoisyBatch
from resalign.diffusion.models import Models
from resalign.diffusion.parametrisation import Direct, Parametrisation, Scope, lora, named_weights, pull_back, select
from resalign.lazy import torch
from resalign.objectives.denoising import denoising_loss, harmful_loss, prior_preserving_loss
from resalign.objectives.distillation import distillation_loss
from resalign.tensors.named import Named, add, detached, gradient, norm
from resalign.tensors.steps import DivergenceError, apply_gradients
from resalign.tracking import log

T = TypeVar("T")


class SimulationConfig(Strict):
    """π(C): the fine-tuning configurations that are simulated, each value drawn uniformly [ResAlign, Section 4.1]."""

    lr: tuple[float, ...] = (1e-4, 1e-5, 1e-6)
    steps: tuple[int, ...] = (5, 10, 20, 30)
    loss: tuple[Literal["denoising", "prior_preserving"], ...] = ("denoising", "prior_preserving")
    adaptation: tuple[Literal["full", "attention", "lora"], ...] = ("full", "lora")
    optimizer: tuple[Literal["sgd", "adam"], ...] = ("sgd", "adam")
    data: Literal["redrawn", "fixed"] = Field(
        "redrawn", description="fixed: every draw fine-tunes on the run's first subset, the ablation of varied data"
    )
    images: int = Field(50, gt=0, description="images of D_FT, drawn from the pool")
    batch_size: int = Field(1, gt=0)
    lora_rank: int = Field(4, gt=0)
    prior_weight: float = Field(1.0, ge=0)

    @model_validator(mode="after")
    def _choices_are_positive(self) -> SimulationConfig:
        for name in ("lr", "steps", "loss", "adaptation", "optimizer"):
            values = getattr(self, name)
            if not values:
                raise ValueError(f"simulation.{name} needs at least one choice")
            if name in ("lr", "steps") and min(values) <= 0:
                raise ValueError(f"simulation.{name} must be positive, got {values}")
        return self


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
        The changed UNet weights, by parameter name.

    Raises:
        DivergenceError: If a loss or gradient is not finite, or a solve diverges and ``on_divergence`` is ``raise``.
    """
    unet, original = models.unet, named_weights(models.unet)
    outer = _outer_parametrisation(config, original)
    variables = detached(outer.initial(original, run.generator("resalign", "outer")), requires_grad=True)
    kinds = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    optimizer = kinds[config.optimizer](list(variables.values()), lr=config.lr, weight_decay=config.weight_decay)
    stream = run.generator("resalign", "batches")
    for i in run.progress(range(config.steps)):
        harmful_batch = data.forget.draw(config.batch_size, stream)
        retain_batch = data.retain.draw(config.retain_batch_size, stream)
        weights = outer.weights(original, variables)
        # (1 − β)∇L_harm(θ_i) + α∇R(θ_i) [Alg. 2, line 4]
        harmful = harmful_loss(unet, weights, harmful_batch, config.truncation)
        retain = distillation_loss(unet, weights, original, retain_batch)
        total = gradient((1 - config.beta) * harmful + config.alpha * retain, variables)
        theta = detached(weights)
        for j in range(config.draws if config.beta else 0):
            # D_FT ∼ D, C ∼ π(C); θ* = Adapt(θ_i, D_FT, C); the hypergradient x_j [Alg. 2, lines 6 to 8]
            streams = run.generator("resalign", "simulation", i, j), run.generator("resalign", "fixed data")
            simulated = _Simulation(models, data, config, *streams)
            estimate, damping = simulated.hypergradient(
                theta,
                partial(harmful_loss, unet, batch=harmful_batch, truncation=config.truncation),
                where=f"outer step {i}, draw {j}",
            )
            total = add(total, pull_back(outer, original, variables, estimate.value), config.beta / config.draws)
            run.history.record(i, **simulated.record, **_record_estimate(estimate), relaxation=damping)
        for name, variable in variables.items():
            variable.grad = total[name]
        grad_norm = apply_gradients(optimizer, config.max_grad_norm, what=f"resalign at outer step {i}")
        run.history.record(i, harmful_loss=harmful.item(), retain_loss=retain.item(), grad_norm=grad_norm)
    final = detached(outer.weights(original, variables))
    return {name: tensor for name, tensor in final.items() if not torch.equal(tensor, original[name])}


def _outer_parametrisation(config: Config, weights: Named) -> Parametrisation:
    """The trained weights; the low-rank initial deviations are the released code's."""
    if config.trained == "lora":
        return lora(weights, config.lora_rank, down_std=0.008, up_std=0.002)
    scope: Scope = "full" if config.trained == "full" else "attention"
    return Direct(tuple(select(weights, scope)))


def _record_estimate(estimate: Hypergradient) -> dict[str, float]:
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


@dataclass
class _Simulation:
    """One draw (D_FT, C): a simulated user's fine-tuning."""

    models: Models
    data: UnlearningData
    config: Config
    stream: torch.Generator
    fixed_stream: torch.Generator

    def __post_init__(self) -> None:
        choices = self.config.simulation
        self.lr = self._pick(choices.lr)
        self.steps = self._pick(choices.steps)
        self.loss = self._pick(choices.loss)
        self.adaptation = self._pick(choices.adaptation)
        self.optimizer = self._pick(choices.optimizer)
        # The same number of random values is used up either way, so that ablations share every other draw.
        subset = torch.randperm(len(self.data.pool), generator=self.stream)
        if choices.data == "fixed":
            subset = torch.randperm(len(self.data.pool), generator=self.fixed_stream)
        self.images = self.data.pool.subset(subset[: choices.images])
        self.record = {"inner_lr": self.lr, "inner_steps": self.steps, "inner_lora": self.adaptation == "lora"}

    def hypergradient(self, theta: Named, outer_loss: Loss, *, where: str) -> tuple[Hypergradient, float]:
        """Adapts θ and differentiates through it; returns the estimate and the relaxation that it took."""
        inner = self._parametrisation(theta)
        start = inner.initial(theta, self.stream)
        adapted, losses = adapt(
            lambda step, psi: self._inner_loss(self.config.simulation.batch_size)(inner.weights(theta, psi)),
            start,
            lr=self.lr,
            steps=self.steps,
            optimizer=self.optimizer,
        )
        self.record |= {"inner_loss": losses[-1]}
        frozen = self._inner_loss(self.config.hessian_batch_size, stratified=True)

        gamma, mode = self._gamma(), self.config.hessian_products

        def estimate(solver: SolverConfig) -> Hypergradient:
            bound = partial(solve, config=solver)
            if self.config.mapping == "merged" or self.adaptation == "full":
                merged = inner.weights(theta, adapted)
                return merged_hypergradient(outer_loss, frozen, theta, merged, gamma=gamma, solve=bound, mode=mode)
            return exact_hypergradient(
                outer_loss, frozen, theta, start, adapted, inner.weights, gamma=gamma, solve=bound, mode=mode
            )

        return _damped(estimate, self.config, where=f"{where} ({self})")

    def _gamma(self) -> Gamma:
        """γ of this draw: T steps of gradient descent at a rate η are a proximal step of γ = Tη [to first order]."""
        if self.config.gamma != "matched":
            return self.config.gamma
        return (
            self.lr * self.steps if self.optimizer == "sgd" else partial(matched, unmatched=self.config.gamma_unmatched)
        )

    def _parametrisation(self, theta: Named) -> Parametrisation:
        """What the simulated user trains."""
        if self.adaptation == "lora":
            return lora(theta, self.config.simulation.lora_rank)
        return Direct(tuple(select(theta, self.adaptation)))

    def _inner_loss(self, batch_size: int, *, stratified: bool = False) -> Loss:
        """L_FT on one batch, frozen: the same function of the weights at every call."""

        def draw(images: EncodedImages) -> NoisyBatch:
            return (images.draw_stratified if stratified else images.draw)(batch_size, self.stream)

        unet, batch = self.models.unet, draw(self.images)
        if self.loss == "denoising":
            return lambda weights: denoising_loss(unet, weights, batch)
        prior, weight = draw(self.data.retain), self.config.simulation.prior_weight
        return lambda weights: prior_preserving_loss(unet, weights, batch, prior, weight)

    def _pick(self, choices: Sequence[T]) -> T:
        return choices[int(torch.randint(len(choices), (1,), generator=self.stream))]

    def __str__(self) -> str:
        return f"{self.adaptation}, {self.optimizer}, lr {self.lr:g}, {self.steps} steps, {self.loss} loss"


def _damped(
    estimate: Callable[[SolverConfig], Hypergradient], config: Config, *, where: str
) -> tuple[Hypergradient, float]:
    """An estimate whose solve has not diverged, halving the relaxation (and raising K with it) if so configured.

    Returns:
        The estimate and the relaxation that it took, 1 for a solver without one.

    Raises:
        DivergenceError: If the residual stays above ``max_residual``, or no damping is allowed.
    """
    solver, relaxation = config.solver, getattr(config.solver, "relaxation", 1.0)
    halvings_left = config.max_damping if config.on_divergence == "damp" else 0
    while True:
        result = estimate(solver)
        size, residual = norm(result.value), result.solution.relative_residual
        solved = result.solution.state == "first_order" or residual <= config.max_residual
        if math.isfinite(size) and solved:
            return result, relaxation
        state = f"relative residual {residual:.3g} at relaxation {relaxation:g}, γ {result.gamma:g}"
        if not halvings_left:
            remedy = "lower gamma" if config.on_divergence == "damp" else "lower gamma, or set on_divergence: damp"
            raise DivergenceError(f"hypergradient of {where}: {state}; {remedy}")
        relaxation, halvings_left = relaxation / 2, halvings_left - 1
        solver = solver.model_copy(update={"relaxation": relaxation})
        log.warning("hypergradient of %s: %s; retrying at relaxation %g", where, state, relaxation)
