"""Training batches: latents, noise, timesteps and prompts, drawn from an encoded image set."""

from __future__ import annotations

from dataclasses import dataclass

from resalign.data.images import CaptionedImages
from resalign.diffusion.models import Models
from resalign.lazy import diffusers, torch


@dataclass(frozen=True)
class NoisyBatch:
    """A batch at fixed noise and timesteps.

    Attributes:
        noisy_latents: (B, C, h, w).
        timesteps: (B,), integer.
        encoder_hidden_states: Text embeddings, (B, tokens, width).
        target: What the network should predict, (B, C, h, w): the noise, or the velocity if the scheduler says so.
    """

    noisy_latents: torch.Tensor
    timesteps: torch.Tensor
    encoder_hidden_states: torch.Tensor
    target: torch.Tensor


@dataclass(frozen=True)
class EncodedImages:
    """An image set in latent space.

    Attributes:
        latents: (N, C, h, w), scaled.
        encoder_hidden_states: Text embeddings of the distinct prompts, (P, tokens, width).
        prompt_rows: Row of each image's prompt, (N,).
        noise_scheduler: The forward process.
    """

    latents: torch.Tensor
    encoder_hidden_states: torch.Tensor
    prompt_rows: torch.Tensor
    noise_scheduler: diffusers.DDPMScheduler

    def __len__(self) -> int:
        """Number of images."""
        return len(self.latents)

    def subset(self, indices: torch.Tensor) -> EncodedImages:
        """The images at ``indices`` (M,)."""
        return EncodedImages(
            self.latents[indices], self.encoder_hidden_states, self.prompt_rows[indices], self.noise_scheduler
        )

    def draw(self, batch_size: int, generator: torch.Generator) -> NoisyBatch:
        """A batch of images drawn with replacement, each at a timestep of its own, uniform over the schedule."""
        indices = torch.randint(len(self), (batch_size,), generator=generator)
        timesteps = torch.randint(self._train_timesteps, (batch_size,), generator=generator)
        return self.at(indices, timesteps, generator)

    def draw_stratified(self, batch_size: int, generator: torch.Generator) -> NoisyBatch:
        """A batch without replacement (as far as there are images), one timestep from each equal part of time."""
        repeats = -(-batch_size // len(self))
        indices = torch.cat([torch.randperm(len(self), generator=generator) for _ in range(repeats)])[:batch_size]
        positions = (torch.arange(batch_size) + torch.rand(batch_size, generator=generator)) / batch_size
        return self.at(indices, (positions * self._train_timesteps).long(), generator)

    def at(self, indices: torch.Tensor, timesteps: torch.Tensor, generator: torch.Generator) -> NoisyBatch:
        """The images at ``indices`` (B,), noised to ``timesteps`` (B,)."""
        scheduler, latents = self.noise_scheduler, self.latents[indices]
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        timesteps = timesteps.to(latents.device)
        noisy_latents = scheduler.add_noise(latents, noise, timesteps)
        kind = scheduler.config.prediction_type
        if kind == "epsilon":
            target = noise
        elif kind == "v_prediction":
            target = scheduler.get_velocity(latents, noise, timesteps)
        else:
            raise ValueError(f"scheduler predicts {kind!r}; supported: 'epsilon', 'v_prediction'")
        return NoisyBatch(noisy_latents, timesteps, self.encoder_hidden_states[self.prompt_rows[indices]], target)

    @property
    def _train_timesteps(self) -> int:
        return int(self.noise_scheduler.config.num_train_timesteps)


def encode(models: Models, images: CaptionedImages, generator: torch.Generator) -> EncodedImages:
    """Encodes an image set once: latents are sampled from the posterior, prompts embedded."""
    distinct = sorted(set(images.prompts))
    rows = {prompt: row for row, prompt in enumerate(distinct)}
    embeddings = torch.cat([models.encode_prompts(distinct[i : i + 64]) for i in range(0, len(distinct), 64)])
    return EncodedImages(
        models.encode_images(images.load(), generator),
        embeddings,
        torch.tensor([rows[prompt] for prompt in images.prompts]),
        models.noise_scheduler,
    )
