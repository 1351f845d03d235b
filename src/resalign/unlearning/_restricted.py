"""Descent along the restricted gradient, which spoils neither forgetting nor retention to first order.

Source: Ko 2024, NeurIPS, arXiv 2412.07808, Theorem 4; the same as gradient surgery, Yu 2020, arXiv 2001.06782.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from resalign.contracts import Run
from resalign.diffusion.batches import EncodedImages
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import Scope, named_weights, select
from resalign.lazy import torch
from resalign.objectives.denoising import denoising_loss, harmful_loss
from resalign.tensors.params import Params, add, dot, gradient, without_conflict
from resalign.unlearning._descent import DescentConfig, Gradient, Logged, descend


class RestrictedConfig(DescentConfig):
    """The paper's setting for the removal of nudity: one epoch of 800 pairs of images."""

    scope: Scope = "full"
    steps: int = Field(100, ge=0)
    lr: float = Field(1e-5, gt=0)
    batch_size: int = Field(8, gt=0)
    retain_batch_size: int = Field(8, gt=0)
    retain_weight: float = Field(1.5, ge=0, description="λ, weight of the retain term; the released script's `alpha`")
    truncation: float | None = Field(
        1.6, gt=0, description="forget error of a batch from which on it is pushed no further (α, the script's `m`)"
    )


def restricted_gradient(
    loaded: LoadedPipeline, forget: EncodedImages, retain: EncodedImages, config: RestrictedConfig
) -> Gradient:
    """The direction δ_f + δ_r for L_f = −min(‖ε_θ − ε‖², α) on one set and L_r = λ‖ε_θ − ε‖² on the other.

    The weight may come before the projections: they are linear in their argument and blind to the other's scale.
    """
    denoiser = loaded.denoiser

    def step_gradient(weights: Params, variables: Params, stream: torch.Generator) -> tuple[Params, Logged]:
        forget_loss = harmful_loss(denoiser, weights, forget.draw(config.batch_size, stream))
        if config.truncation is not None:
            forget_loss = forget_loss.clamp(min=-config.truncation)
        forget_gradient = gradient(forget_loss, variables)
        retain_loss = denoising_loss(denoiser, weights, retain.draw(config.retain_batch_size, stream))
        retain_gradient = gradient(config.retain_weight * retain_loss, variables)
        # δ_f and δ_r [Ko 2024, Eq. 4], the products over all trained weights at once
        direction = add(
            without_conflict(forget_gradient, retain_gradient), without_conflict(retain_gradient, forget_gradient)
        )
        losses = {"forget_loss": forget_loss.item(), "retain_loss": retain_loss.item()}
        return direction, {**losses, "gradient_product": float(dot(forget_gradient, retain_gradient))}

    return step_gradient


def descend_restricted(
    loaded: LoadedPipeline,
    step_gradient: Gradient,
    config: RestrictedConfig,
    run: Run,
    *,
    method: str,
    **held: Any,
) -> dict[str, torch.Tensor]:
    """Descends from the model's own weights; see :func:`resalign.unlearning._descent.descend`.

    Returns:
        The changed weights, by their names in a weight file.
    """
    original = named_weights(loaded.denoiser)
    names = select(original, config.scope)
    return loaded.named(descend(original, names, step_gradient, config, run, method=method, **held))
