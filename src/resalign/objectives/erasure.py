"""ESD's target: the original model steered away from a concept."""

from __future__ import annotations

from dataclasses import replace

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
    *,
    at: Conditioning | None = None,
    base: Conditioning | None = None,
) -> torch.Tensor:
    """MSE(ε_θ(x_t, c), ε₀(x_t, ∅) − η(ε₀(x_t, c) − ε₀(x_t, ∅))).

    Args:
        denoiser: The network.
        weights: θ.
        original: θ₀.
        batch: x_t with the concept's embeddings c; its target is not used.
        unconditional: The embedding of no prompt, B times.
        negative_guidance: η.
        at: What ε_θ is given in the place of c: another prompt, or c by a text encoder that is trained; B of them.
        base: What the first ε₀ of the target is given in the place of ∅, B of them. With c this is the newer release's
            form, in which η counts one more: ε₀(c) − (η + 1)(ε₀(c) − ε₀(∅)).

    Source: ESD, Gandikota 2023, arXiv 2303.07345, Eq. 6.
    """

    def reference(conditioning: Conditioning) -> torch.Tensor:
        return predict(denoiser, original, replace(batch, conditioning=conditioning))

    with torch.no_grad():
        conditional, empty = reference(batch.conditioning), reference(unconditional)
        start = empty if base is None else reference(base)
        target = start - negative_guidance * (conditional - empty)
    trained = batch if at is None else replace(batch, conditioning=at)
    return (predict(denoiser, weights, trained) - target).square().mean()
