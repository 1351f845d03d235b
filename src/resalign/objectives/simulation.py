"""A downstream user's fine-tuning, simulated: its configuration, images, trained weights, steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypedDict, TypeVar

from pydantic import Field, model_validator

from resalign.bilevel.adaptation import Optimizer, adapt
from resalign.bilevel.hvp import Mode
from resalign.bilevel.hypergradient import ExampleLoss, FineTuned
from resalign.bilevel.unrolled import unrolled_hypergradient
from resalign.config.precision import TrainingPrecision
from resalign.config.strict import Strict
from resalign.diffusion.batches import EncodedImages, NoisyBatch, with_prompts
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import FullRank, Parametrisation, Scope, Trained, interned, lora, select
from resalign.diffusion.precision import in_float32
from resalign.lazy import torch
from resalign.objectives.denoising import denoising_loss, prior_preserving_loss, repeated_loss
from resalign.tensors.losses import Loss, RepeatedLoss, loss_at
from resalign.tensors.params import Params, detached

T = TypeVar("T")
Batches = Sequence[NoisyBatch]
LossName = Literal["denoising", "prior_preserving"]
# Variables of the user's own, or, released, those of the outer loop: `outer` trains them on; `projected` trains all
# weights, then takes the outer variables whose weights are the nearest.
Adaptation = Literal["full", "attention", "lora", "outer", "projected"]
CHOICES = ("lr", "steps", "loss", "adaptation", "optimizer")


class Configuration(Strict):
    """C, one fine-tuning configuration."""

    lr: float = Field(gt=0)
    steps: int = Field(gt=0)
    loss: LossName = "denoising"
    adaptation: Adaptation
    optimizer: Optimizer

    def __str__(self) -> str:
        """For messages."""
        return f"{self.adaptation}, {self.optimizer}, lr {self.lr:g}, {self.steps} steps, {self.loss} loss"


class SimulationConfig(Strict):
    """π(C): the fine-tuning configurations that are simulated, each value drawn uniformly [ResAlign, Section 4.1]."""

    lr: tuple[float, ...] = (1e-4, 1e-5, 1e-6)
    steps: tuple[int, ...] = (5, 10, 20, 30)
    loss: tuple[LossName, ...] = ("denoising", "prior_preserving")
    adaptation: tuple[Adaptation, ...] = ("full", "lora")
    optimizer: tuple[Optimizer, ...] = ("sgd", "adam")
    configurations: tuple[Configuration, ...] = Field(
        (), description="released: in place of the five lists; each outer step takes some, none twice"
    )
    adam_state: Literal["new", "kept"] = Field(
        "new", description="kept: each of the configurations that is `outer` goes on with its own moments, as released"
    )
    data: Literal["redrawn", "fixed"] = Field(
        "redrawn", description="fixed: every draw fine-tunes on the run's first subset, the ablation of varied data"
    )
    images: int = Field(50, gt=0, description="images of D_FT, drawn from the pool")
    batch_size: int = Field(1, gt=0)
    lora_rank: int = Field(4, gt=0)
    prior_weight: float = Field(1.0, ge=0)
    instance_prompt: str | None = Field(
        None,
        description="caption of D_FT in prior-preserving draws; null for its own; released: a photo of *s person",
    )

    @model_validator(mode="after")
    def _choices_are_positive(self) -> SimulationConfig:
        for name in CHOICES:
            values = getattr(self, name)
            if not values:
                raise ValueError(f"simulation.{name} needs at least one choice")
            if name in ("lr", "steps") and min(values) <= 0:
                raise ValueError(f"simulation.{name} must be positive, got {values}")
        return self

    @model_validator(mode="after")
    def _lists_or_configurations(self) -> SimulationConfig:
        fields = type(self).model_fields
        given = [name for name in CHOICES if getattr(self, name) != fields[name].default]
        if self.configurations and given:
            raise ValueError(f"simulation.configurations take the place of {given}; leave out one or the other")
        if self.adam_state == "kept" and not self.configurations:
            raise ValueError("simulation.adam_state: kept is for simulation.configurations, which have a state each")
        return self

    @property
    def losses_a_step(self) -> float:
        """Batches of a step, in the mean over draws: two with prior preservation."""
        losses = [configuration.loss for configuration in self.configurations] or self.loss
        return 1 + losses.count("prior_preserving") / len(losses)

    @property
    def denoiser_passes(self) -> float:
        """With a gradient, of one fine-tuning, in the mean over draws."""
        if not self.configurations:
            return sum(self.steps) / len(self.steps) * self.losses_a_step * self.batch_size
        batches = [c.steps * (1 + (c.loss == "prior_preserving")) for c in self.configurations]
        return sum(batches) / len(batches) * self.batch_size

    def chosen(self, draws: int, stream: torch.Generator) -> list[int | None]:
        """Indices of the configurations of one outer step, none twice; None where each draw picks from the lists."""
        count = len(self.configurations)
        return torch.randperm(count, generator=stream)[:draws].tolist() if count else [None] * draws

    def drawn(self, stream: torch.Generator, configuration: int | None = None) -> Configuration:
        """C: one of ``configurations``, or, where it is None, a value of each list."""
        if configuration is not None:
            return self.configurations[configuration]
        return Configuration(**{name: _pick(getattr(self, name), stream) for name in CHOICES})


class UsersSimulation(SimulationConfig):
    """Fine-tunings of users, each with weights of its own; none is a part of an outer loop."""

    loss: tuple[LossName, ...] = ("denoising",)
    adaptation: tuple[Literal["full", "attention", "lora"], ...] = ("full", "lora")
    configurations: tuple[()] = Field((), description="the defence's; each value is drawn from its list")


class Frozen(TypedDict):
    """L_FT on a frozen batch, and by example; fields of :class:`resalign.bilevel.hypergradient.FineTuned`."""

    loss: Loss
    examples: tuple[ExampleLoss, ...]


class Simulation:
    """One draw (D_FT, C) of a fine-tuning set and a configuration.

    Attributes:
        configuration: The one that was drawn; lr, steps, loss, adaptation, optimizer: its values.
        images: D_FT, the images that were drawn from the pool.
    """

    def __init__(
        self,
        loaded: LoadedPipeline,
        pool: EncodedImages,
        prior: EncodedImages,
        config: SimulationConfig,
        stream: torch.Generator,
        fixed_stream: torch.Generator,
        configuration: int | None = None,
    ) -> None:
        """Draws C, then D_FT.

        Args:
            loaded: The model whose denoiser is fine-tuned; it is called functionally and not changed.
            pool: Images of which D_FT is a subset.
            prior: Images of the prior-preserving loss.
            config: π(C).
            stream: Random numbers of this draw.
            fixed_stream: Random numbers of the subset that all draws of a run share where ``data`` is fixed.
            configuration: Which of ``config.configurations`` is C; None to draw each value from its list.
        """
        self.configuration = chosen = config.drawn(stream, configuration)
        self.lr, self.steps, self.loss = chosen.lr, chosen.steps, chosen.loss
        self.adaptation, self.optimizer = chosen.adaptation, chosen.optimizer
        # Both settings consume the same number of random values, so that ablations share every other draw.
        subset = torch.randperm(len(pool), generator=stream)
        if config.data == "fixed":
            subset = torch.randperm(len(pool), generator=fixed_stream)
        self.images = pool.subset(subset[: config.images])
        if config.instance_prompt is not None and self.loss == "prior_preserving":
            captioned = with_prompts(loaded, self.images.latents, [config.instance_prompt] * len(self.images))
            self.images = replace(captioned, stds=self.images.stds)
        self._loaded, self._prior, self._config, self._stream = loaded, prior, config, stream

    @property
    def is_outer(self) -> bool:
        """Whether the fine-tuned point has the coordinates of the outer variables; else it is one of weights."""
        return self.adaptation in ("outer", "projected")

    def run(
        self,
        theta: Params,
        *,
        hessian_batch_size: int,
        outer: Trained | None = None,
        state: dict[str, Any] | None = None,
    ) -> FineTuned:
        """Fine-tunes θ, a fresh batch at every step, then freezes a stratified batch for the loss's curvature.

        Args:
            theta: The weights θ; left untouched.
            hessian_batch_size: Examples of the frozen batch.
            outer: The outer variables φ, whose weights are θ; for a draw that ``is_outer``.
            state: The optimizer's, see :func:`adapt`.

        Returns:
            The fine-tuning of the weights θ, or of φ in place of θ where the draw ``is_outer``.

        Raises:
            DivergenceError: If a loss or gradient is not finite.
        """
        assert outer or not self.is_outer, f"a draw of adaptation {self.adaptation} is given no outer variables"

        def fine_tuned(
            start: Params, at: Callable[[Loss], Loss] = lambda loss: loss
        ) -> tuple[dict[str, torch.Tensor], list[float]]:
            return adapt(
                lambda _: at(self._objective()),
                start,
                lr=self.lr,
                steps=self.steps,
                optimizer=self.optimizer,
                state=state,
            )

        # T steps of gradient descent at a rate η are a proximal step of γ = Tη, to first order.
        gamma = self.lr * self.steps if self.optimizer == "sgd" else None
        if outer and self.is_outer:
            phi = detached(outer.variables)
            if self.adaptation == "outer":
                adapted, losses = fine_tuned(phi, outer.loss_at)
            else:
                moved, losses = fine_tuned(theta)
                adapted = outer.fitted(moved)
            frozen = self.frozen(hessian_batch_size, outer)
            return FineTuned(phi, phi, adapted, lambda _, psi: psi, losses=tuple(losses), gamma_hint=gamma, **frozen)
        trained = self._parametrisation(theta)
        start = trained.initial(theta, self._stream)
        adapted, losses = fine_tuned(start, lambda loss: loss_at(loss, trained.weights, theta))
        frozen = self.frozen(hessian_batch_size)
        return FineTuned(theta, start, adapted, trained.weights, losses=tuple(losses), gamma_hint=gamma, **frozen)

    def differentiated(self, outer_loss: Loss, theta: Params, mode: Mode) -> tuple[Params, dict[str, torch.Tensor]]:
        """Fine-tunes θ as :meth:`run` does, all weights by ``sgd`` or ``adam``, and differentiates every step.

        In float32 throughout, where ``run`` fine-tunes in the precision that it is called in.

        Returns:
            θ* and d outer_loss(θ*) / dθ; see :func:`resalign.bilevel.unrolled.unrolled_hypergradient`.

        Raises:
            DivergenceError: If the derivative is not finite.
        """
        losses = [self._objective("float32") for _ in range(self.steps)]
        optimizer: Any = self.optimizer
        return unrolled_hypergradient(
            outer_loss, losses, theta, lr=self.lr, steps=self.steps, optimizer=optimizer, mode=mode
        )

    def frozen(self, batch_size: int, outer: Trained | None = None) -> Frozen:
        """L_FT on one stratified batch, in float32, at a point as :meth:`run` returns it."""
        batches, own = self._batches(batch_size, stratified=True), outer if self.is_outer else None

        def at(loss: Loss) -> Loss:
            found = in_float32(loss)
            return lambda point: found(own.weights(point) if own else point)

        loss = self._loss(batches, "float32")
        weighted = zip(batches, (1.0, self._config.prior_weight), strict=False)
        examples = [e for batch, weight in weighted for e in by_example(self._loaded.denoiser, batch, weight)]
        return {
            "loss": own.loss_at(loss) if own else loss,
            "examples": tuple(example._replace(loss=at(example.loss)) for example in examples),
        }

    def _parametrisation(self, theta: Params) -> Parametrisation:
        """The variables of the simulated user's own."""
        if self.adaptation == "lora":
            return interned(lora(theta, self._config.lora_rank))
        scope: Scope = "attention" if self.adaptation == "attention" else "full"
        return interned(FullRank(tuple(select(theta, scope))))

    def _objective(self, precision: TrainingPrecision | None = None) -> RepeatedLoss:
        """L_FT on a batch of one step."""
        return self._loss(self._batches(self._config.batch_size), precision)

    def _batches(self, batch_size: int, *, stratified: bool = False) -> Batches:
        """Images of the user, then prior images if the loss has them."""
        sources = [self.images, *([self._prior] if self.loss == "prior_preserving" else [])]
        return [(s.draw_stratified if stratified else s.draw)(batch_size, self._stream) for s in sources]

    def _loss(self, batches: Batches, precision: TrainingPrecision | None) -> RepeatedLoss:
        if self.loss == "denoising":
            return repeated_loss(denoising_loss, self._loaded, batches, precision=precision)
        weight = self._config.prior_weight
        return repeated_loss(prior_preserving_loss, self._loaded, batches, weight, precision=precision)

    def __str__(self) -> str:
        """The configuration that was drawn, for messages."""
        return str(self.configuration)


def by_example(denoiser: torch.nn.Module, batch: NoisyBatch, weight: float = 1.0) -> tuple[ExampleLoss, ...]:
    """The denoising loss of a batch, times a weight, as the losses of its examples."""
    elements, share = batch.target[0].numel(), weight / len(batch)
    parts = (batch[i : i + 1] for i in range(len(batch)))
    return tuple(ExampleLoss(partial(denoising_loss, denoiser, batch=part), share, elements) for part in parts)


def _pick(choices: Sequence[T], stream: torch.Generator) -> T:
    return choices[int(torch.randint(len(choices), (1,), generator=stream))]
