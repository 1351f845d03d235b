"""How much cross-attention looks at a concept's tokens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from resalign.config.strict import ConfigError
from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.micro_batches import micro_batches
from resalign.diffusion.prediction import predict
from resalign.lazy import torch
from resalign.tensors.params import Params


def concept_attention_loss(
    denoiser: torch.nn.Module,
    weights: Params,
    batch: NoisyBatch,
    concept_tokens: torch.Tensor,
    masks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Σ_layers ‖A[pixels of the concept, tokens of the concept]‖_F over all heads, a mean over examples.

    Args:
        denoiser: A network with cross-attention.
        weights: θ.
        batch: x_t with prompts that name the concept; its target is not used.
        concept_tokens: Which tokens of each prompt are the concept's, (B, T), bool.
        masks: Where each example shows the concept, (B, h, w) in [0, 1]; None for everywhere.

    Source: MACE, Lu 2024, arXiv 2403.06135; the norm is not squared, as in its released code.
    """
    total = torch.zeros(len(batch.noisy_latents), device=batch.noisy_latents.device)
    for attention in cross_attention_maps(denoiser, weights, batch):
        looked = attention * concept_tokens[:, None, None, :].to(attention)
        if masks is not None:
            edge = int(attention.shape[2] ** 0.5)
            inside = torch.nn.functional.interpolate(masks[:, None].to(attention), (edge, edge), mode="nearest") > 0.5
            looked = looked * inside.flatten(2)[..., None]
        total = total + torch.linalg.vector_norm(looked, dim=(1, 2, 3))
    return total.mean()


def cross_attention_maps(denoiser: torch.nn.Module, weights: Params, batch: NoisyBatch) -> list[torch.Tensor]:
    """A = softmax(QKᵀ / √width) of every cross-attention layer, (B, heads, pixels, tokens), float32.

    Raises:
        ConfigError: If gradient checkpointing hides the activations that a gradient needs.
    """
    layers = [module for name, module in denoiser.named_modules() if name.endswith(".attn2")]
    with micro_batches(None), _outputs([m for layer in layers for m in (layer.to_q, layer.to_k)]) as outputs:
        prediction = predict(denoiser, weights, batch)
    if prediction.requires_grad and not any(output.requires_grad for output in outputs):
        raise ConfigError("attention maps cannot be trained with gradient_checkpointing; turn it off for this method")
    maps = []
    for layer, query, key in zip(layers, outputs[::2], outputs[1::2], strict=True):
        query, key = (x.float().unflatten(2, (layer.heads, -1)).transpose(1, 2) for x in (query, key))
        maps.append((layer.scale * query @ key.transpose(2, 3)).softmax(dim=-1))
    return maps


@contextlib.contextmanager
def _outputs(modules: list[torch.nn.Module]) -> Iterator[list[torch.Tensor]]:
    """A list that holds the modules' outputs, in their order, once each has been called."""
    found: list[torch.Tensor] = [torch.empty(0)] * len(modules)

    def keep(index: int) -> torch.utils.hooks.RemovableHandle:
        def hook(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
            found[index] = output

        return modules[index].register_forward_hook(hook)

    handles = [keep(index) for index in range(len(modules))]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
