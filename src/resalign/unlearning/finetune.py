"""Finetune: trains on the retain set alone, and leaves the forget set to be forgotten.

Source: Warnecke 2021, arXiv 2108.11577, as a diffusion baseline in Ko 2024, arXiv 2412.07808.
Deviation: images are drawn at random, not in the order of their files.
"""

from __future__ import annotations

from pydantic import Field

from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import Scope, named_weights, select
from resalign.lazy import torch
from resalign.objectives.denoising import denoising_loss
from resalign.tensors.params import Params
from resalign.unlearning._descent import DescentConfig, Gradient, Logged, descend, of_loss


class Config(DescentConfig):
    """RGD's setting for Stable Diffusion: one epoch of 800 images."""

    scope: Scope = "full"
    steps: int = Field(100, ge=0)
    lr: float = Field(1e-5, gt=0)
    batch_size: int = Field(8, gt=0)


def step_gradient(loaded: LoadedPipeline, data: UnlearningData, config: Config) -> Gradient:
    """The gradient of ‖ε_θ − ε‖² on the retain set."""

    def loss(weights: Params, stream: torch.Generator) -> tuple[torch.Tensor, Logged]:
        value = denoising_loss(loaded.denoiser, weights, data.retain.draw(config.batch_size, stream))
        return value, {"retain_loss": value.item()}

    return of_loss(loss)


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Descends the retain set's denoising loss.

    Returns:
        The changed weights, by their names in a weight file.
    """
    original = named_weights(loaded.denoiser)
    names = select(original, config.scope)
    return loaded.named(descend(original, names, step_gradient(loaded, data, config), config, run, method="finetune"))
