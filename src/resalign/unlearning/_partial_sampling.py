"""Noisy latents that a model samples itself, for methods that erase a concept without images of it."""

from __future__ import annotations

from pydantic import Field

from resalign.config.passes import Passes
from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.conditioning import Conditioning
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.sampling import partial_sample
from resalign.lazy import torch
from resalign.tensors.params import Params
from resalign.unlearning._descent import DescentConfig


class SampledConfig(DescentConfig):
    """How x_t is sampled; a method's ``Config`` extends it."""

    batch_size: int = Field(1, gt=0)
    start_guidance: float = Field(3.0, gt=0, description="guidance of the partial sampling that gives x_t")
    num_inference_steps: int = Field(
        50, gt=1, description="DDIM steps of a whole sampling, of which a random part is run"
    )

    @property
    def sampling_passes(self) -> Passes:
        """Of one x_t: 0 to N − 1 steps, each with the prompt and without."""
        return Passes(forward=2 * (self.num_inference_steps - 1) / 2)


def sampled(
    loaded: LoadedPipeline,
    config: SampledConfig,
    weights: Params,
    conditioning: Conditioning,
    unconditional: Conditioning,
    stream: torch.Generator,
    *,
    exact: bool = True,
) -> NoisyBatch:
    """x_t at a random step of the schedule, sampled by the given weights, with the prompts that it was sampled at.

    Args:
        loaded: Supplies network and noise schedule.
        config: Guidance and number of steps.
        weights: Of the model that samples.
        conditioning: Embedded prompts, B of them.
        unconditional: The embedding of no prompt, B times.
        stream: Draws the initial noise and how far to go.
        exact: See :func:`resalign.diffusion.sampling.partial_sample`.
    """
    latents, timesteps = partial_sample(
        loaded,
        weights,
        conditioning,
        unconditional,
        guidance_scale=config.start_guidance,
        num_inference_steps=config.num_inference_steps,
        generator=stream,
        exact=exact,
    )
    return NoisyBatch(latents, timesteps, conditioning, torch.empty_like(latents))
