"""Relabelling: on images of a concept, the prediction for its prompt becomes the one for a substitute prompt."""

from __future__ import annotations

from dataclasses import replace

from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.conditioning import Conditioning
from resalign.diffusion.prediction import predict
from resalign.lazy import torch
from resalign.tensors.params import Params


def relabelling_loss(
    denoiser: torch.nn.Module, weights: Params, reference: Params, batch: NoisyBatch, substitute: Conditioning
) -> torch.Tensor:
    """MSE(ε_θ(x_t, c), ε_ref(x_t, c')), a mean over elements; no gradient reaches the target.

    Args:
        denoiser: The network.
        weights: θ.
        reference: The weights that predict with the substitute: θ itself, or the original ones.
        batch: Images of the concept with their prompts c, noised; its target is not used.
        substitute: c', the embedding of a substitute prompt for each image.

    Source: SalUn, Fan 2024, arXiv 2310.12508, Eq. 8, whose reference is θ.
    """
    with torch.no_grad():
        target = predict(denoiser, reference, replace(batch, conditioning=substitute))
    return (predict(denoiser, weights, batch) - target).square().mean()
