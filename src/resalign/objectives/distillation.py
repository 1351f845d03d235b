"""Distillation to the original model, which preserves the utility of an unlearned one, and its reverse."""

from __future__ import annotations

from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.prediction import predict
from resalign.lazy import torch
from resalign.tensors.params import Params


def distillation_loss(denoiser: torch.nn.Module, weights: Params, original: Params, batch: NoisyBatch) -> torch.Tensor:
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


def reversed_distillation_loss(
    denoiser: torch.nn.Module, weights: Params, anchor: Params, batch: NoisyBatch, *, weight: float, truncation: float
) -> torch.Tensor:
    """E‖ε_θ − ε‖² − weight · E min(‖ε_θ − ε_a‖², truncation): denoising, and away from another model's predictions.

    With ``weight`` below 1 and no truncation the best prediction is ε_a + (ε − ε_a) / (1 − weight), beyond the noise;
    from 1 on there is none. An example whose distance has reached ``truncation`` is no longer pushed.

    Args:
        denoiser: The network.
        weights: θ.
        anchor: The weights a of the model to move away from.
        batch: Images, noised, on which both are taken.
        weight: Of the distance.
        truncation: Largest distance of an example that counts, a mean over elements; noise has a variance of 1.
    """
    with torch.no_grad():
        anchored = predict(denoiser, anchor, batch)
    prediction = predict(denoiser, weights, batch)
    distance = (prediction - anchored).square().mean(dim=(1, 2, 3)).clamp(max=truncation)
    return (prediction - batch.target).square().mean() - weight * distance.mean()
