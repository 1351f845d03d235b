"""GradDiff: gradient ascent on the forget set, distillation on the retain set; ResAlign with every component off.

Source: gradient difference, Liu 2022, arXiv 2203.12817, as a diffusion baseline in RGD (Lee 2025).
Deviation: the retain term is distillation to the original model, R of [ResAlign, Eq. 3], not the denoising loss.
"""

from __future__ import annotations

from pydantic import Field

from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import Scope, named_weights, select
from resalign.lazy import torch
from resalign.objectives.denoising import harmful_loss
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
    alpha: float = Field(1.0, ge=0, description="weight of the distillation term")
    truncation: float | None = Field(1.5, gt=0, description="cap of the forget error; null for none")
    max_grad_norm: float | None = Field(1.0, gt=0)


def step_gradient(loaded: LoadedPipeline, data: UnlearningData, config: Config) -> Gradient:
    """The gradient of −min(‖ε_θ − ε‖², m) on the forget set plus α‖ε_θ − ε₀‖² on the retain set."""
    original = named_weights(loaded.denoiser)

    def loss(weights: Params, stream: torch.Generator) -> tuple[torch.Tensor, Logged]:
        forget = harmful_loss(loaded.denoiser, weights, data.forget.draw(config.batch_size, stream), config.truncation)
        retain_batch = data.retain.draw(config.retain_batch_size, stream)
        retain = distillation_loss(loaded.denoiser, weights, original, retain_batch)
        return forget + config.alpha * retain, {"forget_loss": forget.item(), "retain_loss": retain.item()}

    return of_loss(loss)


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Descends both terms together.

    Returns:
        The changed weights, by their names in a weight file.
    """
    original = named_weights(loaded.denoiser)
    direction = step_gradient(loaded, data, config)
    return loaded.named(descend(original, select(original, config.scope), direction, config, run, method="graddiff"))
