"""GradDiff: gradient ascent on the forget set, distillation on the retain set; ResAlign with every component off.

Source: gradient difference, Liu 2022, arXiv 2203.12817, as a diffusion baseline in RGD (Lee 2025).
Deviation: the retain term is distillation to the original model, R of [ResAlign, Eq. 3], not the denoising loss.
"""

from __future__ import annotations

from pydantic import Field

from resalign.config.strict import Strict
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import Scope, named_weights, select
from resalign.lazy import torch
from resalign.objectives.denoising import harmful_loss
from resalign.objectives.distillation import distillation_loss
from resalign.tensors.params import detached
from resalign.tensors.steps import clipped_step


class Config(Strict):
    """Defaults of the two-term objective at Stable Diffusion's size."""

    scope: Scope = "full"
    steps: int = Field(120, gt=0)
    lr: float = Field(1e-5, gt=0)
    batch_size: int = Field(4, gt=0)
    retain_batch_size: int = Field(4, gt=0)
    alpha: float = Field(1.0, ge=0, description="weight of the distillation term")
    truncation: float | None = Field(1.5, gt=0, description="cap of the forget error; null for none")
    max_grad_norm: float = Field(1.0, gt=0)


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Minimises −min(‖ε_θ − ε‖², m) on the forget set plus α‖ε_θ − ε₀‖² on the retain set.

    Returns:
        The changed weights, by their names in a weight file.
    """
    original = named_weights(loaded.denoiser)
    variables = detached({name: original[name] for name in select(original, config.scope)}, requires_grad=True)
    optimizer = torch.optim.Adam(list(variables.values()), lr=config.lr)
    stream = run.generator("graddiff")
    for step in run.steps(range(config.steps), variables=variables, optimizer=optimizer, stream=stream):
        weights = original | variables
        forget = harmful_loss(loaded.denoiser, weights, data.forget.draw(config.batch_size, stream), config.truncation)
        retain_batch = data.retain.draw(config.retain_batch_size, stream)
        retain = distillation_loss(loaded.denoiser, weights, original, retain_batch)
        loss = forget + config.alpha * retain
        grad_norm = clipped_step(optimizer, loss, config.max_grad_norm, what=f"graddiff at step {step}")
        run.history.record(step, forget_loss=forget.item(), retain_loss=retain.item(), grad_norm=grad_norm)
    return loaded.named(detached(variables))
