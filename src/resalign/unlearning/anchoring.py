"""Anchoring, a method of this project: the concept gets a substitute's prediction, and all else keeps its own.

The hypothesis: fine-tuning repairs what unlearning has damaged beside the concept, and the concept comes back with it;
the less is damaged, the less comes back. So both targets are the original model's predictions: with a substitute prompt
on the concept's images, with their own prompts on retained images and on those that users may fine-tune on. No
fine-tuning is simulated. dev/LOG.md, 2026-11-30, compares it with the terms of ResAlign on networks of handwritten
digits; its defaults have not been tried at Stable Diffusion's size.

Source: none has both terms. The first is SalUn's (Fan 2024, ICLR, arXiv 2310.12508, Eq. 8) with the original model as
its reference; Kumari 2023, ICCV, arXiv 2303.13516, has it on images of the substitute, there the anchor concept. The
second is R of [ResAlign, Eq. 3] on more images.
"""

from __future__ import annotations

from pydantic import Field

from resalign.config.passes import Passes
from resalign.contracts import RetainImages, Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import Scope, named_weights, select
from resalign.lazy import torch
from resalign.objectives.distillation import distillation_loss
from resalign.objectives.relabelling import relabelling_loss
from resalign.tensors.params import Params
from resalign.unlearning._descent import DescentConfig, Gradient, Logged, descend, of_loss
from resalign.unlearning._relabelling import substitutes_of


class Config(DescentConfig):
    """What is trained, on how many images a step."""

    scope: Scope = "full"
    steps: int = Field(200, ge=0)
    lr: float = Field(1e-5, gt=0)
    batch_size: int = Field(4, gt=0)
    retain_batch_size: int = Field(8, gt=0)
    alpha: float = Field(1.0, ge=0, description="weight of the retain term")
    retain_images: RetainImages = Field(
        "retain_and_pool", description="images of the retain term; retain: without those of simulated users"
    )
    max_grad_norm: float | None = Field(1.0, gt=0)

    @property
    def denoiser_passes(self) -> Passes:
        """Of a step: the original model gives every target."""
        images = self.batch_size + self.retain_batch_size
        return Passes(gradient=images, forward=images)

    def needs(self) -> tuple[str, ...]:
        """A prompt for what is shown in the concept's place."""
        return ("substitute",)


def step_gradient(loaded: LoadedPipeline, data: UnlearningData, config: Config) -> Gradient:
    """The gradient of MSE(ε_θ(x_f, c), ε₀(x_f, c')) + α · MSE(ε_θ(x_r, c_r), ε₀(x_r, c_r))."""
    denoiser, original, substitutes = loaded.denoiser, named_weights(loaded.denoiser), substitutes_of(loaded, data)
    kept = data.retained(config.retain_images)

    def loss(weights: Params, stream: torch.Generator) -> tuple[torch.Tensor, Logged]:
        forgotten = data.forget.draw(config.batch_size, stream)
        forget = relabelling_loss(denoiser, weights, original, forgotten, substitutes(forgotten.prompts))
        retain = distillation_loss(denoiser, weights, original, kept.draw(config.retain_batch_size, stream))
        return forget + config.alpha * retain, {"forget_loss": forget.item(), "retain_loss": retain.item()}

    return of_loss(loss)


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Descends both terms together.

    Returns:
        The changed weights, by their names in a weight file.
    """
    original = named_weights(loaded.denoiser)
    names = select(original, config.scope)
    return loaded.named(descend(original, names, step_gradient(loaded, data, config), config, run, method="anchoring"))
