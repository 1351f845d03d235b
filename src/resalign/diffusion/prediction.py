"""A network's prediction with weights that are not its own."""

from __future__ import annotations

from resalign.diffusion.batches import NoisyBatch
from resalign.lazy import torch
from resalign.tensors.named import Named


def predict(unet: torch.nn.Module, weights: Named, batch: NoisyBatch) -> torch.Tensor:
    """The network's prediction (B, C, h, w) with the given weights in place of its own."""
    arguments = (batch.noisy_latents, batch.timesteps, batch.encoder_hidden_states)
    prediction: torch.Tensor = torch.func.functional_call(unet, dict(weights), arguments).sample
    return prediction
