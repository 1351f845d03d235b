"""The denoising loss, DreamBooth's prior-preserving form of it, and its negative."""

from __future__ import annotations

from resalign.diffusion.batches import NoisyBatch, embedded_with
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.prediction import predict
from resalign.lazy import torch
from resalign.tensors.params import Params


def per_example_error(denoiser: torch.nn.Module, weights: Params, batch: NoisyBatch) -> torch.Tensor:
    """Mean squared error of each example, (B,)."""
    return (predict(denoiser, weights, batch) - batch.target).square().mean(dim=(1, 2, 3))


def denoising_loss(denoiser: torch.nn.Module, weights: Params, batch: NoisyBatch) -> torch.Tensor:
    """E‖ε_θ(x_t, c, t) − ε‖² [ResAlign, Eq. 1, with w_t = 1], a mean over elements."""
    return per_example_error(denoiser, weights, batch).mean()


def loss_with(changed: Params, loaded: LoadedPipeline, batch: NoisyBatch, *, embeds: bool = False) -> float:
    """The denoising loss of a batch by a model with changed weights, by their names in a weight file.

    ``embeds`` lets the text encoders embed the prompts anew, which they do in any case where they are changed.
    """
    prefix = f"{loaded.architecture.denoiser}."
    weights = {name.removeprefix(prefix): tensor for name, tensor in changed.items() if name.startswith(prefix)}
    text = {name: tensor for name, tensor in changed.items() if not name.startswith(prefix)}
    with torch.no_grad():
        batch = embedded_with(loaded, text, batch) if text or embeds else batch
        return denoising_loss(loaded.denoiser, weights, batch).item()


def prior_preserving_loss(
    denoiser: torch.nn.Module, weights: Params, batch: NoisyBatch, prior: NoisyBatch, prior_weight: float
) -> torch.Tensor:
    """The denoising loss plus ``prior_weight`` times that of images of the class at large.

    Source: DreamBooth, Ruiz 2023, arXiv 2208.12242, Eq. 2.
    """
    return denoising_loss(denoiser, weights, batch) + prior_weight * denoising_loss(denoiser, weights, prior)


def harmful_loss(
    denoiser: torch.nn.Module, weights: Params, batch: NoisyBatch, truncation: float | None = None
) -> torch.Tensor:
    """The NEGATIVE denoising loss on harmful pairs, L_harm of [ResAlign, Eq. 3].

    It is unbounded below. With ``truncation`` m an example whose error has reached m contributes −m and no gradient.

    Source: RGD's released script truncates its GradDiff so, there the error of a batch. It is no part of ResAlign.
    """
    error = per_example_error(denoiser, weights, batch)
    if truncation is not None:
        error = error.clamp(max=truncation)
    return -error.mean()
