"""EraseDiff: retains by descent of a denoising loss whose every step must also lower a relabelling loss.

Source: Wu 2024, CVPR 2025, arXiv 2401.05779; the solver is BOME, Liu 2022, arXiv 2209.08709, Algorithm 1.
With q = L_f − L_f*, L_f* being L_f after K inner steps, the step is along ∇L_r + λ∇q. L_f* is a number, so that
∇q = ∇L_f, and K matters only where λ depends on q itself: elsewhere the inner steps are not taken.
Deviations: λ adapts, as in the papers (the released scripts for Stable Diffusion fix it, and then are L_r + λL_f);
batches are drawn at random (released: the first alone); the inner steps are K on the outer step's own batch, with an
optimizer of their own (released: K passes over the set, with the outer optimizer); L_f* is taken at their end.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights, select
from resalign.lazy import torch
from resalign.tensors.params import Params, add, detached, dot, gradient
from resalign.tensors.steps import DivergenceError, clipped_step
from resalign.unlearning._descent import Gradient, Logged, descend
from resalign.unlearning._relabelling import OfWeights, RelabellingConfig, drawn_losses, weighted_sum

Adaptive = Literal["gradient", "gap", "cosine"]


class Config(RelabellingConfig):
    """Published defaults; the released scope for nudity is noxattn, which only UNets have."""

    steps: int = Field(160, ge=0, description="of 5 epochs; the released note says that these are enough")
    weighting: Adaptive | Literal["fixed"] = Field(
        "gradient", description="λ: BOME's with φ = η‖∇q‖², or φ = ηq (gap); max(0, η − cos(∇L_r, ∇q)); fixed"
    )
    eta: float = Field(0.1, ge=0, description="η, how fast q must fall; of the released class-conditional script")
    fixed_weight: float = Field(0.1, ge=0, description="λ where it is fixed; the scripts that are run have 1")
    inner_steps: int = Field(2, ge=0, description="K, for φ = ηq")
    inner_lr: float = Field(1e-5, gt=0, description="rate of the inner steps' Adam")


def step_gradient(loaded: LoadedPipeline, data: UnlearningData, config: Config) -> Gradient:
    """∇L_r + λ∇L_f, L_r the denoising loss of the retain set, L_f the relabelling loss of the forget set."""
    if config.weighting == "fixed":
        return weighted_sum(loaded, data, config, forget_weight=config.fixed_weight)
    draw, weighting = drawn_losses(loaded, data, config), config.weighting

    def direction(weights: Params, variables: Params, stream: torch.Generator) -> tuple[Params, Logged]:
        forget_of, retain_of = draw(stream)
        forget, retain = forget_of(weights), retain_of(weights)
        logged = {"forget_loss": forget.item(), "retain_loss": retain.item()}
        retain_slope, forget_slope = gradient(retain, variables), gradient(forget, variables)
        gap = 0.0
        if weighting == "gap":
            gap = logged["gap"] = forget.item() - _after_inner_steps(forget_of, weights, variables, config)
        logged["lambda"] = weight_of(retain_slope, forget_slope, weighting, eta=config.eta, gap=gap)
        return add(retain_slope, forget_slope, logged["lambda"]), logged

    return direction


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Descends both losses, weighted anew at each step.

    Returns:
        The weights in scope, by their names in a weight file.
    """
    original = named_weights(loaded.denoiser)
    names, direction = select(original, config.scope), step_gradient(loaded, data, config)
    return loaded.named(descend(original, names, direction, config, run, method="erasediff"))


def weight_of(retain_slope: Params, forget_slope: Params, weighting: Adaptive, *, eta: float, gap: float) -> float:
    """λ, the least that is not negative with ⟨∇L_r + λ∇q, ∇q⟩ ≥ φ [BOME, Algorithm 1]; 0 where ∇q is 0.

    Args:
        retain_slope: ∇L_r.
        forget_slope: ∇q.
        weighting: φ is η‖∇q‖² (gradient) or ηq (gap); cosine is the released code's λ, with no φ.
        eta: η.
        gap: q; below 0, where the inner steps overshot, it counts as 0.
    """
    pairing, size = float(dot(retain_slope, forget_slope)), float(dot(forget_slope, forget_slope))
    if size == 0:
        return 0.0
    if weighting == "cosine":
        lengths = math.sqrt(size * float(dot(retain_slope, retain_slope)))
        return max(0.0, eta - (pairing / lengths if lengths else 0.0))
    phi = eta * (size if weighting == "gradient" else max(0.0, gap))
    return max(0.0, (phi - pairing) / size)


def _after_inner_steps(forget_of: OfWeights, weights: Params, variables: Params, config: Config) -> float:
    """L_f* of one batch: L_f after K steps of Adam from θ, which is left untouched.

    Raises:
        DivergenceError: If a gradient on the way or L_f* itself is not finite.
    """
    inner = detached(variables, requires_grad=True)
    optimizer = torch.optim.Adam(list(inner.values()), lr=config.inner_lr)
    for step in range(config.inner_steps):
        clipped_step(optimizer, forget_of({**weights, **inner}), None, what=f"erasediff at inner step {step}")
    with torch.no_grad():
        value = forget_of({**weights, **inner}).item()
    if not math.isfinite(value):
        raise DivergenceError(f"erasediff: L_f is {value} after the inner steps; lower inner_lr")
    return value
