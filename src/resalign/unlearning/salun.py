"""SalUn: relabels a concept's images with a substitute prompt, in the weights that matter most for the concept.

Source: Fan 2024, ICLR, arXiv 2310.12508, Eq. 4 to 8. c is each image's own caption, c' its concept's substitute.
Deviations: batches are drawn at random (the released script trained on the first batch alone until 2026-02); an image
has one latent in both terms; a batch counts in the saliency by its images, so that the last may be smaller; of weights
of equal saliency the first are trained.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from resalign.contracts import Run, UnlearningData
from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights, select
from resalign.diffusion.prediction import predict
from resalign.lazy import torch
from resalign.tensors.params import Params, detached, gradient, zeros_like
from resalign.tensors.ranking import top_share
from resalign.unlearning._descent import Gradient, Logged, descend
from resalign.unlearning._relabelling import RelabellingConfig, weighted_sum


class Config(RelabellingConfig):
    """Published defaults for nudity; classes have α 0.5 and 5 epochs."""

    steps: int = Field(100, ge=0, description="published: 1 epoch of 800 images")
    batch_size: int = Field(8, gt=0)
    retain_batch_size: int = Field(8, gt=0)
    alpha: float = Field(0.1, ge=0, description="α, weight of denoising on the retain set")
    mask_share: float = Field(0.5, ge=0, le=1, description="share of the weights in scope that are trained")
    saliency_guidance: float = Field(7.5, description="g of the guided prediction (1 + g)ε(c) − gε(∅) in the saliency")


def step_gradient(loaded: LoadedPipeline, data: UnlearningData, config: Config) -> Gradient:
    """The gradient of MSE(ε_θ(x_f, c), ε_θ(x_f, c')) + α · denoising(retain), before the mask [SalUn, Eq. 8]."""
    return weighted_sum(loaded, data, config, retain_weight=config.alpha)


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Ranks the weights by saliency, then descends in the most salient.

    Returns:
        The weights in scope, by their names in a weight file; those outside the mask keep their bits.
    """
    original = named_weights(loaded.denoiser)
    mask = top_share({n: value.abs() for n, value in saliency(loaded, data, config, run).items()}, config.mask_share)
    unmasked = step_gradient(loaded, data, config)

    def masked(weights: Params, variables: Params, stream: torch.Generator) -> tuple[Params, Logged]:
        direction, logged = unmasked(weights, variables, stream)
        return {name: slope * mask[name] for name, slope in direction.items()}, logged

    def restored(variables: Params) -> None:
        # A masked gradient does not hold a weight where the optimizer has weight decay.
        for name, variable in variables.items():
            variable.copy_(torch.where(mask[name], variable, original[name]))

    trained = descend(original, mask, masked, config, run, method="salun", stepped=restored, mask=mask)
    return loaded.named(trained)


def saliency(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """∇L_m of the weights in scope, summed with its sign over one pass of the forget set [SalUn, Eq. 4 and 5]."""
    original = named_weights(loaded.denoiser)
    leaves = detached({name: original[name] for name in select(original, config.scope)}, requires_grad=True)
    total, stream = zeros_like(leaves), run.generator("salun", "saliency")
    parts = torch.randperm(len(data.forget), generator=stream).split(config.batch_size)
    for index in run.steps(range(len(parts)), phase="saliency", total=total, stream=stream):
        rows = parts[index]
        positions = torch.randint(loaded.noise_scheduler.config.num_train_timesteps, rows.shape, generator=stream)
        batch = data.forget.at(rows, positions, stream)
        loss = _guided_harmful_loss(loaded, {**original, **leaves}, batch, config.saliency_guidance)
        for name, slope in gradient(loss * len(rows) / len(data.forget), leaves).items():
            total[name] += slope
    return total


def _guided_harmful_loss(loaded: LoadedPipeline, weights: Params, batch: NoisyBatch, guidance: float) -> torch.Tensor:
    """L_m = −MSE(n, (1 + g)ε_θ(x_t, c) − gε_θ(x_t, ∅))."""
    empty = replace(batch, conditioning=loaded.unconditional(len(batch.conditioning)))
    conditional, unconditional = (predict(loaded.denoiser, weights, given) for given in (batch, empty))
    return -((1 + guidance) * conditional - guidance * unconditional - batch.target).square().mean()
