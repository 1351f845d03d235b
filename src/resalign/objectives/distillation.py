"""Distillation to the original model: what preserves the utility of an unlearned one."""

from __future__ import annotations

from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.prediction import predict
from resalign.lazy import torch
from resalign.tensors.named import Named


def distillation_loss(denoiser: torch.nn.Module, weights: Named, original: Named, batch: NoisyBatch) -> torch.Tensor:
    """R(θ) = E‖ε_θ(x_t, c, t) − ε₀(x_t, c, t)‖² over preservation prompts [ResAlign, Eq. 3].

    Args:
        denoiser: The network.
        weights: θ.
        original: The weights before unlearning, θ₀.
        batch: Preservation images, noised.
    """
    with torch.no_grad():
        target = predict(denoiser, original, batch)
    return (predict(denoiser, weights, batch) - target).square().mean()
