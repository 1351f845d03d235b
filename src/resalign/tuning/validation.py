"""What a search minimises: the harmful loss after simulated fine-tuning, and the loss of what is retained."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from pydantic import Field, model_validator

from resalign.config.passes import Passes
from resalign.config.strict import ConfigError
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.errors import DataError
from resalign.lazy import torch
from resalign.objectives.distillation import distillation_loss
from resalign.objectives.simulated_hypergradient import HypergradientConfig, simulated_hypergradient
from resalign.objectives.simulation import Simulation, UsersSimulation
from resalign.tensors.losses import gradient_at
from resalign.tensors.params import Params, add, detached, scaled, zeros_like
from resalign.tensors.steps import DivergenceError
from resalign.unlearning._harmful import HarmfulConfig, HarmfulLoss, OfWeights, Relabelling, harmful_draws


class Config(HarmfulConfig, HypergradientConfig):
    """L_harm(θ*) + αR(θ) on images that no training sees; a detector's rate has no gradient."""

    harmful: HarmfulLoss = Field(
        default_factory=Relabelling, description="bounded below: an unbounded one would be lowered without end"
    )
    alpha: float = Field(1.0, ge=0, description="weight of R, distillation on retained images")
    draws: int = Field(2, gt=0, description="simulated fine-tunings over which L_harm is a mean, the same every time")
    batch_size: int = Field(16, gt=0)
    retain_batch_size: int = Field(32, gt=0)
    simulation: UsersSimulation = UsersSimulation()

    @model_validator(mode="after")
    def _nothing_is_sampled(self) -> Config:
        if self.harmful.name == "erasure":
            raise ValueError("harmful: erasure samples its images with the model that it judges; take relabelling")
        return self

    @property
    def value_passes(self) -> Passes:
        """Of a validation loss; the targets of relabelling and of R are the original model's."""
        simulated, outer = Passes(gradient=self.simulation.denoiser_passes), self.batch_size + self.retain_batch_size
        return (simulated + self._targets + Passes(forward=outer)) * self.draws

    @property
    def slope_passes(self) -> Passes:
        """Of its gradient."""
        outer = self.batch_size + self.retain_batch_size
        return (Passes(gradient=self.hypergradient_passes + outer) + self._targets) * self.draws

    @property
    def _targets(self) -> Passes:
        return self.target_passes * self.batch_size + Passes(forward=self.retain_batch_size)


class Judged(NamedTuple):
    """A model's validation loss and its two parts."""

    value: float
    harmful: float
    retained: float


@dataclass(frozen=True)
class _Draw:
    """A simulated fine-tuning, which can be run once, and the losses around it."""

    simulation: Simulation
    harmful: OfWeights
    retained: OfWeights


def held_out(data: UnlearningData, share: float) -> tuple[UnlearningData, UnlearningData]:
    """The images of training, and those of validation, of each set at equal distances.

    Raises:
        DataError: If a set is too small to have both.
    """
    parts: list[dict[str, Any]] = [{}, {}]
    for name in ("forget", "retain", "pool"):
        images = getattr(data, name)
        count = round(share * len(images))
        if not 0 < count < len(images):
            raise DataError(
                f"tuning.held_out: {share:g} of the {len(images)} images of '{name}' leaves {len(images) - count} for "
                f"training and {count} for validation; both need one"
            )
        places = ((torch.arange(count) + 0.5) * len(images) / count).long()
        kept = torch.ones(len(images), dtype=torch.bool)
        kept[places] = False
        for part, indices in zip(parts, (kept.nonzero().flatten(), places), strict=True):
            part[name] = images.subset(indices)
            if name == "forget":
                part["mosaic"] = data.mosaic.subset(indices) if data.mosaic else None
                part["masks"] = data.masks[indices] if data.masks is not None else None
    training, validation = (replace(data, **part) for part in parts)
    return training, validation


class Validation:
    """The validation loss of a model, and its gradient in the denoiser's weights; equal draws at every call."""

    def __init__(self, loaded: LoadedPipeline, data: UnlearningData, config: Config, seed: int) -> None:
        """Args: the original pipeline, held-out images, settings, and the seed of the draws."""
        self._loaded, self._data, self._config, self._run = loaded, data, config, Run(seed)
        self._original = named_weights(loaded.denoiser)
        self._harmful = harmful_draws(loaded, data, config, config.batch_size)

    def __call__(self, changed: Params) -> Judged:
        """The loss of changed weights, by their names in a weight file.

        Raises:
            DivergenceError: If a simulated fine-tuning diverges, or the loss is not finite.
        """
        theta, harmful, retained = self.weights(changed), 0.0, 0.0
        for position in range(self._config.draws):
            draw = self._drawn(theta, position)
            tuned = draw.simulation.run(theta, hessian_batch_size=1)
            with torch.no_grad():
                harmful += draw.harmful(tuned.weights(theta, tuned.adapted)).item() / self._config.draws
                retained += draw.retained(theta).item() / self._config.draws
        value = harmful + self._config.alpha * retained
        if not math.isfinite(value):
            raise DivergenceError(f"the validation loss is {value}")
        return Judged(value, harmful, retained)

    def slope(self, changed: Params) -> dict[str, torch.Tensor]:
        """Its gradient, by the denoiser's own names; L_harm's by the hypergradient that the settings say."""
        theta, total = self.weights(changed), dict[str, torch.Tensor]()
        for position in range(self._config.draws):
            draw = self._drawn(theta, position)
            parts: list[Params] = [scaled(gradient_at(draw.retained, theta), self._config.alpha)]
            where = f"validation, draw {position}"
            parts.append(simulated_hypergradient(self._config, draw.simulation, theta, draw.harmful, where=where)[0])
            for part in parts:
                total = add(total or zeros_like(theta), part, 1 / self._config.draws)
        return total

    def weights(self, changed: Params) -> dict[str, torch.Tensor]:
        """All weights of the denoiser, by its own names.

        Raises:
            ConfigError: If others were changed.
        """
        prefix = f"{self._loaded.architecture.denoiser}."
        if others := [name for name in changed if not name.startswith(prefix)]:
            raise ConfigError(f"tuning: the method changes {others[0]}, and validation sees the denoiser alone")
        inner = {name.removeprefix(prefix): weight for name, weight in changed.items()}
        return detached({**self._original, **inner})

    def _drawn(self, theta: Params, position: int) -> _Draw:
        """The draw of a position, each time as the first time."""
        drawn, images = (self._run.generator("validation", purpose, position) for purpose in ("draw", "images"))
        fixed, data = self._run.generator("validation", "fixed data"), self._data
        simulation = Simulation(self._loaded, data.pool, data.retain, self._config.simulation, drawn, fixed)
        batch = data.retain.draw(self._config.retain_batch_size, images)

        def retained(weights: Params) -> torch.Tensor:
            return distillation_loss(self._loaded.denoiser, weights, self._original, batch)

        return _Draw(simulation, self._harmful(theta, images), retained)
