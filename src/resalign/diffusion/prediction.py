"""A network's prediction with weights that are not its own."""

from __future__ import annotations

from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.micro_batches import in_parts
from resalign.lazy import torch
from resalign.tensors.named import Named


def predict(unet: torch.nn.Module, weights: Named, batch: NoisyBatch) -> torch.Tensor:
    """The network's prediction (B, C, h, w) with the given weights in place of its own, in micro-batches if any."""

    def call(*tensors: torch.Tensor) -> torch.Tensor:
        arguments, own = tensors[:3], dict(zip(weights, tensors[3:], strict=True))
        prediction: torch.Tensor = torch.func.functional_call(unet, own, arguments).sample
        return prediction

    examples = (batch.noisy_latents, batch.timesteps, batch.encoder_hidden_states)
    return in_parts(call, examples, tuple(weights.values()))
