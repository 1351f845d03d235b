"""Scissorhands: re-initialises the weights that matter most for a concept, then repairs the model by relabelling.

Source: Wu 2024, ECCV, arXiv 2401.06187. The projection of the repair is GEM's, Lopez-Paz 2017, arXiv 1706.08840, with
one stored gradient; the released code for Stable Diffusion parses its flag and never projects (``project: false``).
Deviations: batches are drawn at random (released: the first alone); no least multiple of the stored gradient is added
on conflict (the released projection of the classification code adds at least half of it); the gradient is stored once,
after the trim. Of weights of equal saliency the first are trimmed.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

from pydantic import Field

from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import Scope, named_weights, select
from resalign.lazy import torch
from resalign.objectives.denoising import denoising_loss, harmful_loss
from resalign.tensors.params import Params, detached, dot, gradient, without_conflict, zeros_like
from resalign.tensors.ranking import top_share
from resalign.unlearning._descent import Gradient, Logged, descend
from resalign.unlearning._relabelling import RelabellingConfig, weighted_sum


class Config(RelabellingConfig):
    """Published defaults for nudity; classes have a sparsity of 0.999, lr 2e-5 and 3 epochs."""

    steps: int = Field(250, ge=0, description="of the repair; published: 5 epochs, here of 800 images")
    sparsity: float = Field(0.995, ge=0, le=1, description="share of all weights below the saliency that is trimmed")
    trimmed: Scope | Literal["released"] = Field(
        "full",
        description="where salient weights are re-initialised, within scope; released: attn1 of the second attention "
        "of the first two up-blocks that have any, which are output_blocks 4 and 7 of Stable Diffusion 1",
    )
    saliency_batches: int = Field(10, gt=0)
    forget_weight: float = Field(0.1, ge=0, description="λ, weight of relabelling")
    project: bool = Field(True, description="whether a step may not point against the stored gradient")


def step_gradient(loaded: LoadedPipeline, data: UnlearningData, config: Config) -> Gradient:
    """The gradient of denoising(retain) + λ · relabelling(forget), before the projection."""
    return weighted_sum(loaded, data, config, forget_weight=config.forget_weight)


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Trims, then repairs.

    Returns:
        The weights in scope, by their names in a weight file.

    Raises:
        ValueError: If the network has no weight where it is to be trimmed.
    """
    original = named_weights(loaded.denoiser)
    names, within = select(original, config.scope), where_trimmed(original, config.trimmed)
    total = saliency(loaded, data, config, run)
    start = trim(original, total, set(names) & set(within), 1 - config.sparsity, run.generator("scissorhands", "trim"))
    run.history.record(0, trimmed_weights=sum(int((start[n] != original[n]).sum()) for n in names))
    stored = forget_slope(loaded, start, names, data, config, run)
    unprojected = step_gradient(loaded, data, config)

    def projected(weights: Params, variables: Params, stream: torch.Generator) -> tuple[Params, Logged]:
        direction, logged = unprojected(weights, variables, stream)
        if not config.project:
            return direction, logged
        pairing = float(dot(direction, stored))
        return without_conflict(direction, stored), {**logged, "pairing": pairing}

    # An attempt that goes on in the repair finds total empty, so that the trimmed weights are those that it holds.
    trained = descend(start, names, projected, config, run, method="scissorhands", stored=stored)
    return loaded.named(trained)


def saliency(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Σ|∇L| of all weights, L the denoising loss of a forget batch: absolute values inside the sum."""
    leaves = detached(named_weights(loaded.denoiser), requires_grad=True)
    total, stream = zeros_like(leaves), run.generator("scissorhands", "saliency")
    for _ in run.steps(range(config.saliency_batches), phase="saliency", total=total, stream=stream):
        batch = data.forget.draw(config.batch_size, stream)
        for name, slope in gradient(denoising_loss(loaded.denoiser, leaves, batch), leaves).items():
            total[name] += slope.abs()
    return total


def trim(
    weights: Params, total: Params, within: Collection[str], share: float, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Re-initialises a share of the weights: those of the largest |θ ⊙ Σ|∇L|| of all, as far as they lie within."""
    salient = top_share({name: (weights[name] * total[name]).abs() for name in weights}, share)
    return {
        name: torch.where(salient[name], _initial(name, tensor, generator), tensor) if name in within else tensor
        for name, tensor in weights.items()
    }


def where_trimmed(weights: Params, where: Scope | Literal["released"]) -> list[str]:
    """Names of the weights in a scope, or of those that the released code re-initialises.

    Raises:
        ValueError: If there are none.
    """
    if where != "released":
        return select(weights, where)
    found = {name: re.match(r"up_blocks\.(\d+)\.attentions\.1\..*\.attn1\.", name) for name in weights}
    blocks = {name: int(match[1]) for name, match in found.items() if match}
    if not blocks:
        raise ValueError("trimmed: released names blocks of a UNet, and the network has none of them; give a scope")
    first = sorted(set(blocks.values()))[:2]
    return [name for name, block in blocks.items() if block in first]


def forget_slope(
    loaded: LoadedPipeline, start: Params, names: Collection[str], data: UnlearningData, config: Config, run: Run
) -> dict[str, torch.Tensor]:
    """The stored gradient m, of −denoising on a forget batch: a step along −x learns none of it if ⟨x, m⟩ ≥ 0."""
    leaves = detached({name: start[name] for name in names}, requires_grad=True)
    batch = data.forget.draw(config.batch_size, run.generator("scissorhands", "stored gradient"))
    return gradient(harmful_loss(loaded.denoiser, {**start, **leaves}, batch), leaves)


def _initial(name: str, tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Kaiming's uniform start of a weight, He 2015, arXiv 1502.01852; of a bias 0, of a norm's scale 1."""
    if name.endswith("bias"):
        return torch.zeros_like(tensor)
    if tensor.dim() < 2:
        return torch.ones_like(tensor)
    fresh = torch.empty(tensor.shape, dtype=tensor.dtype)
    return torch.nn.init.kaiming_uniform_(fresh, nonlinearity="relu", generator=generator).to(tensor.device)
