"""ESD: erases a concept by steering the model away from its own predictions for the concept's prompts.

Source: Gandikota 2023, arXiv 2303.07345. Variants: x trains cross-attention, u all but cross-attention, all everything.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from resalign.contracts import Run, UnlearningData
from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import Scope, named_weights, select
from resalign.diffusion.sampling import partial_sample
from resalign.lazy import torch
from resalign.objectives.erasure import erasure_loss
from resalign.tensors.params import Params
from resalign.unlearning._descent import DescentConfig, Gradient, Logged, descend, of_loss

# Its variants are defined by cross-attention, and x_t is sampled by DDIM.
ARCHITECTURES = ("stable_diffusion", "stable_diffusion_xl")
SCOPES: dict[str, Scope] = {"x": "cross_attention", "u": "not_cross_attention", "all": "full"}


class Config(DescentConfig):
    """Published defaults."""

    variant: Literal["x", "u", "all"] = "u"
    steps: int = Field(1000, ge=0)
    lr: float = Field(1e-5, gt=0)
    batch_size: int = Field(1, gt=0)
    negative_guidance: float = Field(1.0, ge=0, description="η")
    start_guidance: float = Field(3.0, gt=0, description="guidance of the partial sampling that gives x_t")
    num_inference_steps: int = Field(
        50, gt=1, description="DDIM steps of a whole sampling, of which a random part is run"
    )


def step_gradient(loaded: LoadedPipeline, data: UnlearningData, config: Config) -> Gradient:
    """The gradient of ESD's loss on the concept's prompts; no image is used."""
    original = named_weights(loaded.denoiser)
    concept, empty = loaded.encode_prompts(data.prompts), loaded.unconditional(config.batch_size)

    def loss(weights: Params, stream: torch.Generator) -> tuple[torch.Tensor, Logged]:
        rows = torch.randint(len(data.prompts), (config.batch_size,), generator=stream)
        # x_t: partial sampling, with the model being trained, to a random step of the schedule [ESD, Section 3.2].
        latents, timesteps = partial_sample(
            loaded,
            weights,
            concept[rows],
            empty,
            guidance_scale=config.start_guidance,
            num_inference_steps=config.num_inference_steps,
            generator=stream,
        )
        batch = NoisyBatch(latents, timesteps, concept[rows], torch.empty_like(latents))
        value = erasure_loss(loaded.denoiser, weights, original, batch, empty, config.negative_guidance)
        return value, {"erasure_loss": value.item()}

    return of_loss(loss)


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Descends ESD's loss.

    Returns:
        The changed weights, by their names in a weight file.
    """
    original = named_weights(loaded.denoiser)
    names = select(original, SCOPES[config.variant])
    return loaded.named(descend(original, names, step_gradient(loaded, data, config), config, run, method="esd"))
