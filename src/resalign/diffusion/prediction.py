"""A network's prediction with given weights in place of its own."""

from __future__ import annotations

from typing import Any

from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.micro_batches import in_parts
from resalign.diffusion.precision import autocast
from resalign.lazy import diffusers, torch
from resalign.tensors.params import Params


def predict(denoiser: torch.nn.Module, weights: Params, batch: NoisyBatch) -> torch.Tensor:
    """The network's prediction (B, C, h, w) with the given weights in place of its own, in micro-batches if any."""
    conditioning = batch.conditioning
    examples = (
        batch.noisy_latents,
        batch.timesteps,
        conditioning.encoder_hidden_states,
        *conditioning.added.values(),
    )
    in_precision = autocast()

    def call(*tensors: torch.Tensor) -> torch.Tensor:
        noisy_latents, timesteps, encoder_hidden_states, *added = tensors[: len(examples)]
        own = dict(zip(weights, tensors[len(examples) :], strict=True))
        by_name = dict(zip(conditioning.added, added, strict=True))
        arguments, named = _arguments(denoiser, noisy_latents, timesteps, encoder_hidden_states, by_name)
        with in_precision(noisy_latents.device.type):
            # No search for tied weights, a tenth of a small network's pass: LoadedPipeline has none.
            call_with = torch.func.functional_call
            prediction: torch.Tensor = call_with(denoiser, own, arguments, named, tie_weights=False).sample
        return prediction.to(noisy_latents.dtype)

    return in_parts(call, examples, tuple(weights.values()))


def _arguments(
    denoiser: torch.nn.Module,
    noisy_latents: torch.Tensor,
    timesteps: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    added: dict[str, torch.Tensor],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inputs under the names of the denoiser's class in diffusers."""
    if isinstance(denoiser, diffusers.SD3Transformer2DModel):
        return (noisy_latents, encoder_hidden_states), {"timestep": timesteps, **added}
    return (noisy_latents, timesteps, encoder_hidden_states), {"added_cond_kwargs": added} if added else {}
