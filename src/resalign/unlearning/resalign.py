"""ResAlign: unlearning that resists fine-tuning, by gradient descent through simulated fine-tunings.

Source: Li 2025, NeurIPS, Algorithms 1 and 2. The published configuration is the default; what AntigoneRandy/ResAlign
@14775d3 does otherwise is a field each, marked "released". Another harmful loss takes the place of the negative
denoising loss by ``harmful``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from resalign.config.passes import Passes
from resalign.config.strict import Strict
from resalign.contracts import RetainImages, Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import FullRank, Parametrisation, Scope, Trained, lora, named_weights, select
from resalign.lazy import torch
from resalign.objectives.distillation import distillation_loss
from resalign.objectives.simulated_hypergradient import HypergradientConfig, simulated_hypergradient
from resalign.objectives.simulation import Simulation
from resalign.tensors.params import Params, add, detached, gradient, norm, scaled
from resalign.tensors.steps import apply_gradients
from resalign.unlearning._harmful import HarmfulConfig, OfWeights, denoising_pairs, harmful_draws

Pull = Callable[[Params], dict[str, "torch.Tensor"]]  # a hypergradient → a gradient in the outer variables


class Ramp(Strict):
    """A weight that rises from one value to another in the second half of the outer steps."""

    start: float = Field(ge=0)
    end: float = Field(ge=0)

    def at(self, step: int, steps: int) -> float:
        """The value at a step, counted from 1: start + (end − start) · σ(10 (progress − ½)) [released]."""
        if 2 * step < steps:
            return self.start
        progress = (step - steps / 2) / (steps / 2)
        return self.start + (self.end - self.start) / (1 + math.exp(-10 * (progress - 0.5)))


class Config(HarmfulConfig, HypergradientConfig):
    """Published defaults [ResAlign, Section 4.1]; J is not published, 3 is the released code's."""

    steps: int = Field(120, gt=0, description="I, outer steps; released: 160")
    lr: float = Field(2e-4, gt=0)
    optimizer: Literal["sgd", "adamw"] = "adamw"
    weight_decay: float = Field(1e-2, ge=0, description="of the variables: the change of θ₀, or its low-rank factors")
    meta_rate: float = Field(
        1.0, gt=0, description="factor of the outer gradient, which adamw all but ignores; released: 0.3"
    )
    alpha: Annotated[float, Field(ge=0)] | Ramp = Field(
        1.0, description="weight of the distillation term R; released: {start: 1.6, end: 2.0}"
    )
    beta: float = Field(0.8, ge=0, le=1, description="weight of the harmful loss after simulated fine-tuning")
    draws: int = Field(3, gt=0, description="J, simulated fine-tunings in each outer step")
    batch_size: int = Field(1, gt=0)
    retain_batch_size: int = Field(4, gt=0)
    retain_images: RetainImages = Field(
        "retain", description="images of R; retain_and_pool: those of simulated users, too"
    )
    batches: Literal["shared", "redrawn"] = Field(
        "shared",
        description="redrawn, released: each of the J draws has its own harmful and retained images, the harmful ones "
        "with other noise after fine-tuning than before",
    )
    prior: Literal["retain", "prior"] = Field(
        "retain", description="images of the prior-preserving loss; prior: the concept's own, released: db_prior"
    )
    trained: Literal["full", "attention", "lora"] = Field("full", description="released: lora, of rank 4")
    lora_rank: int = Field(4, gt=0)
    max_grad_norm: float | None = Field(0.2, gt=0, description="clips the outer gradient; released: null")

    @model_validator(mode="after")
    def _draws_can_be_had(self) -> Config:
        if 0 < len(self.simulation.configurations) < self.draws:
            raise ValueError(
                f"draws is {self.draws}, of {len(self.simulation.configurations)} simulation.configurations"
            )
        if self.batches == "redrawn" and self.harmful.name != "denoising":
            raise ValueError(f"batches: redrawn is for the denoising loss, and harmful is {self.harmful.name}")
        return self

    @property
    def denoiser_passes(self) -> Passes:
        """Of an outer step, in the mean, without draws that are tried again; an exact Hessian product for two."""
        harmful = (Passes(gradient=1) + self.target_passes) * self.batch_size
        drawn = (Passes(gradient=self.hypergradient_passes) + harmful) * (self.draws if self.beta else 0)
        retained, sampled = (
            Passes(gradient=1, forward=1) * self.retain_batch_size,
            self.drawing_passes * self.batch_size,
        )
        return drawn + (harmful + retained + sampled) * (self.draws if self.batches == "redrawn" else 1)

    def needs(self) -> tuple[str, ...]:
        """Also the prior images that are asked for."""
        return (*super().needs(), *["prior"] * (self.prior == "prior"))


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Algorithm 2.

    Returns:
        The changed weights, by their names in a weight file.

    Raises:
        DivergenceError: If a loss or gradient is not finite, or a solve diverges and ``on_divergence`` is ``raise``.
    """
    original = named_weights(loaded.denoiser)
    parametrisation = _outer_parametrisation(config, original)
    variables = parametrisation.initial(original, run.generator("resalign", "outer"))
    outer = Trained(parametrisation, original, detached(variables, requires_grad=True))
    kinds = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    optimizer = kinds[config.optimizer](list(outer.variables.values()), lr=config.lr, weight_decay=config.weight_decay)
    stream, direct_gradient = run.generator("resalign", "batches"), _direct_gradients(loaded, data, config, outer)
    prior = data.retain if config.prior == "retain" else data.prior
    assert prior is not None
    states: dict[int | None, dict[str, Any]] = {}  # of the inner optimizers, by configuration
    held = {"variables": outer.variables, "optimizer": optimizer, "stream": stream, "states": states}
    for i in run.steps(range(config.steps), **held):
        chosen = config.simulation.chosen(config.draws, run.generator("resalign", "configurations", i))
        theta, losses, relaxations = detached(outer.weights()), [], []
        # Not zeros: a sum is laid out in memory as its first term is, and the norm that clips it rounds accordingly.
        total: dict[str, torch.Tensor] = {}
        for j, configuration in enumerate(chosen):
            if j == 0 or config.batches == "redrawn":
                # (1 − β)∇L_harm(θ_i) + α∇R(θ_i) [Alg. 2, line 4]
                direct, outer_loss, values = direct_gradient(i, stream)
                share = 1 / (config.draws if config.batches == "redrawn" else 1)
                total = add(total, direct, share) if total else scaled(direct, share)
                losses.append(values)
                direct = direct if config.on_divergence == "reject" else {}  # not needed again: as large as the weights
            if not config.beta:
                continue
            # D_FT ∼ D, C ∼ π(C); θ* = Adapt(θ_i, D_FT, C); the hypergradient x_j [Alg. 2, lines 6 to 8]
            streams = run.generator("resalign", "simulation", i, j), run.generator("resalign", "fixed data")
            simulated = Simulation(loaded, data.pool, prior, config.simulation, *streams, configuration)
            is_kept = config.simulation.adam_state == "kept" and simulated.adaptation == "outer"
            pull: Pull = dict if simulated.is_outer else outer.vjp
            hypergradient, logged = simulated_hypergradient(
                config,
                simulated,
                theta,
                outer_loss,
                outer=outer,
                state=states.setdefault(configuration, {}) if is_kept else None,
                draw_norm=partial(_norm_beside, direct, config.beta, pull),
                where=f"outer step {i}, draw {j}",
            )
            total = add(total, pull(hypergradient), config.beta / config.draws)
            relaxations.append(logged.get("relaxation", 1.0))
            run.history.record(i, **logged)
        for name, variable in outer.variables.items():
            variable.grad = total[name].mul_(config.meta_rate)
        grad_norm = apply_gradients(optimizer, config.max_grad_norm, what=f"resalign at outer step {i}")
        means = {quantity: sum(values[quantity] for values in losses) / len(losses) for quantity in losses[0]}
        run.history.record(i, **means, grad_norm=grad_norm, **_rejections(config, relaxations))
    final = detached(outer.weights())
    return loaded.named({name: tensor for name, tensor in final.items() if not torch.equal(tensor, original[name])})


# i and a random stream → (1 − β)∇L_harm(θ_i) + α∇R(θ_i) on new batches, L_harm after fine-tuning, and values to log.
DirectGradient = Callable[[int, "torch.Generator"], tuple[dict[str, "torch.Tensor"], OfWeights, dict[str, float]]]


def _direct_gradients(loaded: LoadedPipeline, data: UnlearningData, config: Config, outer: Trained) -> DirectGradient:
    """What an outer step descends besides the hypergradients."""
    draw = harmful_draws(loaded, data, config, config.batch_size)
    draw_pair, kept = denoising_pairs(loaded, data, config, config.batch_size), data.retained(config.retain_images)

    def direct_gradient(i: int, stream: torch.Generator) -> tuple[dict[str, torch.Tensor], OfWeights, dict[str, float]]:
        weights = outer.weights()
        if config.batches == "redrawn":
            before, after = draw_pair(stream)
        else:
            before = after = draw(weights, stream)
        retain_batch = kept.draw(config.retain_batch_size, stream)
        harmful = before(weights)
        retain = distillation_loss(loaded.denoiser, weights, outer.original, retain_batch)
        alpha = config.alpha.at(i + 1, config.steps) if isinstance(config.alpha, Ramp) else config.alpha
        direct = gradient((1 - config.beta) * harmful + alpha * retain, outer.variables)
        return direct, after, {config.harmful.quantity: harmful.item(), "retain_loss": retain.item()}

    return direct_gradient


def _norm_beside(direct: Params, beta: float, pull: Pull, hypergradient: Params) -> float:
    """Norm of the gradient of one draw by itself."""
    return norm(add(direct, pull(hypergradient), beta))


def _rejections(config: Config, relaxations: list[float]) -> dict[str, float]:
    """Of an outer step: how many draws were accepted at a halved relaxation, and how many not at all."""
    if config.on_divergence != "reject":
        return {}
    first = getattr(config.solver, "relaxation", 1.0)
    replaced = sum(relaxation == 0 for relaxation in relaxations)
    return {
        "halved_draws": sum(relaxation < first for relaxation in relaxations) - replaced,
        "replaced_draws": replaced,
    }


def _outer_parametrisation(config: Config, weights: Params) -> Parametrisation:
    """The trained weights; the low-rank initial deviations are the released code's."""
    if config.trained == "lora":
        return lora(weights, config.lora_rank, down_std=0.008, up_std=0.002)
    scope: Scope = "full" if config.trained == "full" else "attention"
    return FullRank(tuple(select(weights, scope)))
