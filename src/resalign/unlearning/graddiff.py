"""GradDiff: gradient ascent on the forget set, distillation on the retain set.

Without truncation and clipping it is ResAlign's objective without simulated fine-tuning.

Source: gradient difference, Liu 2022, arXiv 2203.12817, as a diffusion baseline in RGD (Ko 2024, arXiv 2412.07808).
Deviation: the retain term is distillation to the original model, R of [ResAlign, Eq. 3]; ``retain_loss: denoising`` is
the source's. Truncation caps the error of an example, where RGD's script caps that of a batch. The distance of the
weights and the noise on them are off by default: Siddiqui 2025, arXiv 2505.22310, Weight Dist Reg and Weight
Distortion, there for image classifiers.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from resalign.config.passes import Passes
from resalign.contracts import RetainImages, Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import Scope, named_weights, select
from resalign.lazy import torch
from resalign.objectives.denoising import denoising_loss, harmful_loss
from resalign.objectives.displacement import distance
from resalign.objectives.distillation import distillation_loss
from resalign.tensors.params import Params
from resalign.unlearning._descent import DescentConfig, Gradient, Logged, descend, of_loss


class Config(DescentConfig):
    """Defaults of the two-term objective at Stable Diffusion's size."""

    scope: Scope = "full"
    steps: int = Field(120, ge=0)
    lr: float = Field(1e-5, gt=0)
    batch_size: int = Field(4, gt=0)
    retain_batch_size: int = Field(4, gt=0)
    alpha: float = Field(1.0, ge=0, description="weight of the retain term")
    retain_loss: Literal["distillation", "denoising"] = "distillation"
    retain_images: RetainImages = Field(
        "retain", description="images of the retain term; retain_and_pool: those of simulated users, too"
    )
    truncation: float | None = Field(1.5, gt=0, description="cap of the forget error; null for none")
    max_grad_norm: float | None = Field(1.0, gt=0)
    distance_weight: float = Field(0.0, ge=0, description="μ, weight of −‖θ − θ₀‖")
    distance_truncation: float | None = Field(None, gt=0, description="cap of ‖θ − θ₀‖; null for none")
    start_noise: float = Field(0.0, ge=0, description="deviation of normal noise on the trained weights at the start")

    @property
    def denoiser_passes(self) -> Passes:
        """Of a step; distillation asks the original model, too."""
        targets = self.retain_batch_size if self.retain_loss == "distillation" else 0
        return Passes(gradient=self.batch_size + self.retain_batch_size, forward=targets)


def step_gradient(loaded: LoadedPipeline, data: UnlearningData, config: Config) -> Gradient:
    """The gradient of −min(‖ε_θ − ε‖², m) on the forget set plus α‖ε_θ − ε₀‖² on the retain set, and −μ‖θ − θ₀‖."""
    denoiser, original = loaded.denoiser, named_weights(loaded.denoiser)
    kept = data.retained(config.retain_images)

    def loss(weights: Params, stream: torch.Generator) -> tuple[torch.Tensor, Logged]:
        forget = harmful_loss(denoiser, weights, data.forget.draw(config.batch_size, stream), config.truncation)
        retain_batch = kept.draw(config.retain_batch_size, stream)
        if config.retain_loss == "denoising":
            retain = denoising_loss(denoiser, weights, retain_batch)
        else:
            retain = distillation_loss(denoiser, weights, original, retain_batch)
        total, logged = forget + config.alpha * retain, {"forget_loss": forget.item(), "retain_loss": retain.item()}
        if config.distance_weight:
            moved = distance(original, weights)
            logged["distance"] = moved.item()
            if config.distance_truncation is not None:
                moved = moved.clamp(max=config.distance_truncation)
            total = total - config.distance_weight * moved
        return total, logged

    return of_loss(loss)


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Descends all terms together.

    Returns:
        The changed weights, by their names in a weight file.
    """
    original = named_weights(loaded.denoiser)
    direction = step_gradient(loaded, data, config)
    names = select(original, config.scope)
    start = _with_noise(original, names, config.start_noise, run.generator("graddiff", "start noise"))
    return loaded.named(descend(start, names, direction, config, run, method="graddiff"))


def _with_noise(weights: Params, names: list[str], deviation: float, stream: torch.Generator) -> Params:
    """The weights, those of the given names plus normal noise."""
    if not deviation:
        return weights
    noise = {name: deviation * torch.randn(weights[name].shape, generator=stream) for name in names}
    return {**weights, **{name: weights[name] + noise[name].to(weights[name]) for name in names}}
