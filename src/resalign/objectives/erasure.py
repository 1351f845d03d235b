"""ESD's target, the original model steered away from a concept, in the form that its descendants share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.conditioning import Conditioning
from resalign.diffusion.prediction import predict
from resalign.lazy import torch
from resalign.tensors.params import Params


def steered_loss(
    denoiser: torch.nn.Module,
    weights: Params,
    original: Params,
    batch: NoisyBatch,
    unconditional: Conditioning,
    terms: Sequence[tuple[float, Conditioning]],
) -> torch.Tensor:
    """MSE(ε_θ(x_t, c), ε₀(x_t, ∅) + Σ_i w_i(ε₀(x_t, c_i) − ε₀(x_t, ∅))).

    The target's coefficients sum to 1, so that it means the same for noise, velocity and flow.

    Args:
        denoiser: The network.
        weights: θ.
        original: θ₀.
        batch: x_t with the embeddings c that ε_θ is trained at; its target is not used.
        unconditional: The embedding of no prompt, B times.
        terms: (w_i, c_i) with B embeddings each: away from c_i where w_i is negative, else towards it.
    """

    def reference(conditioning: Conditioning) -> torch.Tensor:
        return predict(denoiser, original, replace(batch, conditioning=conditioning))

    with torch.no_grad():
        target = empty = reference(unconditional)
        for weight, conditioning in terms:
            if weight:
                target = target + weight * (reference(conditioning) - empty)
    return (predict(denoiser, weights, batch) - target).square().mean()


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
    return steered_loss(denoiser, weights, original, batch, unconditional, [(-negative_guidance, batch.conditioning)])
