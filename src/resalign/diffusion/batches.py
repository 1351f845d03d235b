"""Training batches: latents, noise, timesteps and prompts, drawn from an encoded image set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from resalign.data.images import CaptionedImages, DataError
from resalign.diffusion.conditioning import Conditioning, concatenate
from resalign.diffusion.forward_process import noised
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.lazy import diffusers, torch
from resalign.tensors.params import Params


@dataclass(frozen=True)
class NoisyBatch:
    """A batch at fixed noise and timesteps.

    Attributes:
        noisy_latents: (B, C, h, w).
        timesteps: Timesteps as the network takes them, (B,).
        conditioning: Embedded prompts, B of them.
        target: The network's target, (B, C, h, w): noise, velocity or flow, depending on the scheduler.
        prompts: The prompts that ``conditioning`` embeds, B of them; empty for batches that are not of an image set.
    """

    noisy_latents: torch.Tensor
    timesteps: torch.Tensor
    conditioning: Conditioning
    target: torch.Tensor
    prompts: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.timesteps)

    def named(self) -> dict[str, torch.Tensor]:
        """The tensors by name; :meth:`of_named` is the inverse, without the prompts."""
        own = {name: getattr(self, name) for name in ("noisy_latents", "timesteps", "target")}
        return {**own, "encoder_hidden_states": self.conditioning.encoder_hidden_states, **self.conditioning.added}

    @classmethod
    def of_named(cls, tensors: Params) -> NoisyBatch:
        """The batch that has these tensors."""
        rest = dict(tensors)
        noisy_latents, timesteps, target = (rest.pop(name) for name in ("noisy_latents", "timesteps", "target"))
        conditioning = Conditioning(rest.pop("encoder_hidden_states"), rest)
        return cls(noisy_latents, timesteps, conditioning, target)

    def __getitem__(self, rows: slice) -> NoisyBatch:
        """The examples at ``rows``."""
        parts = self.noisy_latents[rows], self.timesteps[rows], self.conditioning[rows], self.target[rows]
        return NoisyBatch(*parts, self.prompts[rows])


@dataclass(frozen=True)
class EncodedImages:
    """An image set in latent space.

    Attributes:
        latents: (N, C, h, w), scaled; means, where there are standard deviations.
        conditioning: The distinct prompts, embedded; P of them.
        prompt_rows: Row of each image's prompt, (N,).
        noise_scheduler: The forward process.
        prompts: Each image's prompt, N of them.
        stds: (N, C, h, w), scaled, of posteriors that every draw samples anew; None for latents that stay as they are.
    """

    latents: torch.Tensor
    conditioning: Conditioning
    prompt_rows: torch.Tensor
    noise_scheduler: diffusers.SchedulerMixin
    prompts: tuple[str, ...]
    stds: torch.Tensor | None = None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.latents)

    def subset(self, indices: torch.Tensor) -> EncodedImages:
        """The images at ``indices`` (M,)."""
        return replace(
            self,
            latents=self.latents[indices],
            prompt_rows=self.prompt_rows[indices],
            prompts=tuple(self.prompts[index] for index in indices.tolist()),
            stds=None if self.stds is None else self.stds[indices],
        )

    def halves(self) -> tuple[EncodedImages, EncodedImages]:
        """Every second image from the first on, and the others: two sets with no image in common.

        Raises:
            DataError: If there is only one image.
        """
        if len(self) < 2:
            raise DataError("an image set of one image cannot be split in two; give at least two")
        indices = torch.arange(len(self))
        return self.subset(indices[::2]), self.subset(indices[1::2])

    def joined(self, others: EncodedImages) -> EncodedImages:
        """These images, then those of another set that the same model has encoded, neither with posteriors."""
        assert self.stds is None
        assert others.stds is None
        return replace(
            self,
            latents=torch.cat([self.latents, others.latents]),
            conditioning=concatenate([self.conditioning, others.conditioning]),
            prompt_rows=torch.cat([self.prompt_rows, others.prompt_rows + len(self.conditioning)]),
            prompts=(*self.prompts, *others.prompts),
        )

    def draw(self, batch_size: int, generator: torch.Generator) -> NoisyBatch:
        """A batch of images drawn with replacement, each at a timestep of its own, uniform over the schedule."""
        return self.at(*self._drawn(batch_size, generator), generator)

    def draw_pair(self, batch_size: int, generator: torch.Generator) -> tuple[NoisyBatch, NoisyBatch]:
        """As :meth:`draw`, at two independent noises."""
        indices, positions = self._drawn(batch_size, generator)
        return self.at(indices, positions, generator), self.at(indices, positions, generator)

    def draw_stratified(self, batch_size: int, generator: torch.Generator) -> NoisyBatch:
        """A batch without replacement (as far as there are images), one timestep from each equal part of time."""
        repeats = -(-batch_size // len(self))
        indices = torch.cat([torch.randperm(len(self), generator=generator) for _ in range(repeats)])[:batch_size]
        shares = (torch.arange(batch_size) + torch.rand(batch_size, generator=generator)) / batch_size
        return self.at(indices, (shares * self._train_timesteps).long(), generator)

    def at(self, indices: torch.Tensor, positions: torch.Tensor, generator: torch.Generator) -> NoisyBatch:
        """The images at ``indices`` (B,), noised to ``positions`` (B,) of the schedule; 0 is the least noise."""
        latents = self.latents[indices]
        if self.stds is not None:
            latents = latents + self.stds[indices] * torch.randn(latents.shape, generator=generator).to(latents)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        noisy_latents, timesteps, target = noised(self.noise_scheduler, latents, noise, positions)
        prompts = tuple(self.prompts[index] for index in indices.tolist())
        return NoisyBatch(noisy_latents, timesteps, self.conditioning[self.prompt_rows[indices]], target, prompts)

    def _drawn(self, batch_size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices and positions, (B,) each, uniform."""
        indices = torch.randint(len(self), (batch_size,), generator=generator)
        return indices, torch.randint(self._train_timesteps, (batch_size,), generator=generator)

    @property
    def _train_timesteps(self) -> int:
        return int(self.noise_scheduler.config.num_train_timesteps)


def encode(
    loaded: LoadedPipeline,
    images: CaptionedImages,
    generator: torch.Generator,
    change: Callable[[torch.Tensor], torch.Tensor] | None = None,
    *,
    with_flips: bool = False,
    sampled: Literal["once", "anew"] = "once",
) -> EncodedImages:
    """Encodes an image set once: latents are sampled from the posterior, prompts embedded.

    Args:
        loaded: The model.
        images: N images with their prompts.
        generator: Draws the posteriors' noise.
        change: Applied to the pixels (N, 3, H, W) before they are encoded.
        with_flips: Adds every image flipped horizontally, after all images.
        sampled: ``anew`` keeps the posteriors, which every draw samples.

    Raises:
        DataError: If the images' size is not the model's.
    """
    if images.pixels != loaded.pixels:
        raise DataError(f"the model has {loaded.pixels} pixels, the images are read at {images.pixels}; set pixels")
    pixels, prompts = change(images.load()) if change else images.load(), images.prompts
    if with_flips:
        pixels, prompts = torch.cat([pixels, pixels.flip(-1)]), (*prompts, *prompts)
    if sampled == "once":
        return with_prompts(loaded, loaded.encode_images(pixels, generator), prompts)
    means, stds = loaded.posterior(pixels)
    return replace(with_prompts(loaded, means, prompts), stds=stds)


def with_prompts(loaded: LoadedPipeline, latents: torch.Tensor, prompts: Sequence[str]) -> EncodedImages:
    """Latents (N, C, h, w), scaled, as an image set with a prompt each; the latents are not copied."""
    distinct = sorted(set(prompts))
    rows = {prompt: row for row, prompt in enumerate(distinct)}
    conditioning = concatenate(loaded.encode_prompts(distinct[i : i + 64]) for i in range(0, len(distinct), 64))
    prompt_rows = torch.tensor([rows[prompt] for prompt in prompts])
    return EncodedImages(latents, conditioning, prompt_rows, loaded.noise_scheduler, tuple(prompts))


def embedded_with(loaded: LoadedPipeline, weights: Params, batch: NoisyBatch) -> NoisyBatch:
    """The batch, its prompts embedded by text encoders with the given weights in place of their own; differentiable.

    Args:
        loaded: The model.
        weights: Text encoders' weights, named ``component.parameter``.
        batch: Drawn from an image set.
    """
    distinct = sorted(set(batch.prompts))
    conditioning = loaded.encode_prompts(distinct, weights)
    return replace(batch, conditioning=conditioning[[distinct.index(prompt) for prompt in batch.prompts]])
