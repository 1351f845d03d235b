"""ESD's target: the original model steered away from a concept."""

from __future__ import annotations

from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.conditioning import Conditioning
from resalign.diffusion.prediction import predict
from resalign.lazy import torch
from resalign.tensors.params import Params


def erasure_loss(
    denoiser: torch.nn.Module,
    weights: Params,
    original: Params,
    batch: NoisyBatch,
    unconditional: Conditioning,
    negative_guidance: float,
) -> torch.Tensor:
    """MSE(ε_θ(x_t, c), ε₀(x_t, ∅) − η(ε₀(x_t, c) − ε₀(x_t, ∅))).

    Args:
        denoiser: The network.
        weights: θ.
        original: θ₀.
        batch: x_t with the concept's embeddings c; its target is not used.
        unconditional: The embedding of no prompt, B times.
        negative_guidance: η.

    Source: ESD, Gandikota 2023, arXiv 2303.07345, Eq. 6.
    """
    with torch.no_grad():
        conditional = predict(denoiser, original, batch)
        empty = predict(
            denoiser, original, NoisyBatch(batch.noisy_latents, batch.timesteps, unconditional, batch.target)
        )
        target = empty - negative_guidance * (conditional - empty)
    return (predict(denoiser, weights, batch) - target).square().mean()
