"""A downstream user's fine-tuning, simulated: its configuration, images, trained weights, steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

from pydantic import Field, model_validator

from resalign.bilevel.adaptation import adapt
from resalign.bilevel.hvp import Loss
from resalign.bilevel.hypergradient import FineTuned
from resalign.config.strict import Strict
from resalign.diffusion.batches import EncodedImages, NoisyBatch
from resalign.diffusion.parametrisation import FullRank, Parametrisation, lora, select
from resalign.diffusion.precision import in_float32
from resalign.lazy import torch
from resalign.objectives.denoising import denoising_loss, prior_preserving_loss
from resalign.tensors.params import Params

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


class Simulation:
    """One draw (D_FT, C) of a fine-tuning set and a configuration.

    Attributes:
        lr, steps, loss, adaptation, optimizer: The configuration that was drawn.
        images: D_FT, the images that were drawn from the pool.
    """

    def __init__(
        self,
        denoiser: torch.nn.Module,
        pool: EncodedImages,
        retain: EncodedImages,
        config: SimulationConfig,
        stream: torch.Generator,
        fixed_stream: torch.Generator,
    ) -> None:
        """Draws C, then D_FT.

        Args:
            denoiser: The network whose weights are fine-tuned; it is called functionally and not changed.
            pool: Images of which D_FT is a subset.
            retain: Images of the prior-preserving loss.
            config: π(C).
            stream: Random numbers of this draw.
            fixed_stream: Random numbers of the subset that all draws of a run share where ``data`` is fixed.
        """
        self.lr = _pick(config.lr, stream)
        self.steps = _pick(config.steps, stream)
        self.loss = _pick(config.loss, stream)
        self.adaptation = _pick(config.adaptation, stream)
        self.optimizer = _pick(config.optimizer, stream)
        # Both settings consume the same number of random values, so that ablations share every other draw.
        subset = torch.randperm(len(pool), generator=stream)
        if config.data == "fixed":
            subset = torch.randperm(len(pool), generator=fixed_stream)
        self.images = pool.subset(subset[: config.images])
        self._denoiser, self._retain, self._config, self._stream = denoiser, retain, config, stream

    def run(self, theta: Params, *, hessian_batch_size: int) -> FineTuned:
        """Fine-tunes θ, a fresh batch at every step, then freezes a stratified batch for the loss's curvature.

        Args:
            theta: The weights θ; left untouched.
            hessian_batch_size: Examples of the frozen batch.

        Raises:
            DivergenceError: If a loss or gradient is not finite.
        """
        trained = self._parametrisation(theta)
        start = trained.initial(theta, self._stream)
        adapted, losses = adapt(
            lambda step, psi: self._objective(self._config.batch_size)(trained.weights(theta, psi)),
            start,
            lr=self.lr,
            steps=self.steps,
            optimizer=self.optimizer,
        )
        frozen = in_float32(self._objective(hessian_batch_size, stratified=True))
        # T steps of gradient descent at a rate η are a proximal step of γ = Tη, to first order.
        gamma = self.lr * self.steps if self.optimizer == "sgd" else None
        return FineTuned(theta, start, adapted, trained.weights, frozen, tuple(losses), gamma)

    def _parametrisation(self, theta: Params) -> Parametrisation:
        """The variables that the simulated user trains."""
        if self.adaptation == "lora":
            return lora(theta, self._config.lora_rank)
        return FullRank(tuple(select(theta, self.adaptation)))

    def _objective(self, batch_size: int, *, stratified: bool = False) -> Loss:
        """L_FT on one batch, frozen: the same function of the weights at every call."""

        def draw(images: EncodedImages) -> NoisyBatch:
            return (images.draw_stratified if stratified else images.draw)(batch_size, self._stream)

        denoiser, batch = self._denoiser, draw(self.images)
        if self.loss == "denoising":
            return lambda weights: denoising_loss(denoiser, weights, batch)
        prior, weight = draw(self._retain), self._config.prior_weight
        return lambda weights: prior_preserving_loss(denoiser, weights, batch, prior, weight)

    def __str__(self) -> str:
        """The configuration that was drawn, for messages."""
        return f"{self.adaptation}, {self.optimizer}, lr {self.lr:g}, {self.steps} steps, {self.loss} loss"


def _pick(choices: Sequence[T], stream: torch.Generator) -> T:
    return choices[int(torch.randint(len(choices), (1,), generator=stream))]
