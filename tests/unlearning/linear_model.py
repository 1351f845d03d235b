"""A denoiser that is one matrix in float64, whose denoising loss is a quadratic with derivatives in closed form."""

from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DDPMScheduler

from resalign.config.concept import ConceptPrompts
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.batches import EncodedImages, NoisyBatch
from resalign.diffusion.conditioning import Conditioning
from resalign.tensors.tracing import Traces
from tests.pipelines import SCHEDULE

CHANNELS = 4
NAME = "block.attn1.to_q.weight"


class LinearDenoiser(torch.nn.Module):
    """ε_θ(x_t) = W x_t, the same at every pixel and timestep; the layer is named as an attention's projection."""

    def __init__(self) -> None:
        super().__init__()
        layer = torch.nn.Linear(CHANNELS, CHANNELS, bias=False).double()
        self.block = torch.nn.ModuleDict({"attn1": torch.nn.ModuleDict({"to_q": layer})})
        with torch.no_grad():
            noise = torch.randn((CHANNELS, CHANNELS), generator=Run(0).generator("linear")).double()
            layer.weight.copy_(torch.eye(CHANNELS) + 0.2 * noise)
        self.requires_grad_(False)

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, hidden: torch.Tensor) -> SimpleNamespace:
        matrix = self.get_submodule(NAME.removesuffix(".weight"))
        return SimpleNamespace(sample=matrix(latents.movedim(1, -1)).movedim(-1, 1))


def linear_pipeline() -> Any:
    """What a method asks of a pipeline, of the linear denoiser."""
    architecture = SimpleNamespace(name="stable_diffusion", denoiser="unet")
    named = lambda weights: {f"unet.{name}": tensor for name, tensor in weights.items()}  # noqa: E731
    return SimpleNamespace(denoiser=LinearDenoiser(), architecture=architecture, named=named, traces=Traces())


def images(name: str) -> EncodedImages:
    """Four images in latent space, with one prompt."""
    latents = torch.randn((4, CHANNELS, 2, 2), generator=Run(1).generator(name)).double()
    conditioning, rows = Conditioning(torch.zeros((1, 1, 1)).double()), torch.zeros(4, dtype=torch.long)
    return EncodedImages(latents, conditioning, rows, DDPMScheduler(**SCHEDULE), (name,) * 4)


def linear_data() -> UnlearningData:
    """Images of the concept, to retain, and of the pool."""
    concepts = (ConceptPrompts(prompts=("forget",)),)
    return UnlearningData(images("forget"), images("retain"), images("pool"), concepts)


def columns(batch: NoisyBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """x_t and the target as matrices (channels, pixels)."""
    return tuple(t.movedim(1, 0).reshape(CHANNELS, -1) for t in (batch.noisy_latents, batch.target))  # type: ignore[return-value]


def slope(matrix: torch.Tensor, batch: NoisyBatch) -> torch.Tensor:
    """The gradient 2(Wx − n)xᵀ / N of the denoising loss mean((Wx − n)²)."""
    x, n = columns(batch)
    return 2 / n.numel() * (matrix @ x - n) @ x.T
