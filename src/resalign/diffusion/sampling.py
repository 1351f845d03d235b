"""Images from prompts with keyed noise, and the partial samples that some objectives need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from resalign.data.prompts import Prompt
from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.conditioning import Conditioning, concatenate
from resalign.diffusion.images import ImageStore
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.noise import initial_noise
from resalign.diffusion.prediction import predict
from resalign.lazy import diffusers, torch
from resalign.tensors.params import Params
from resalign.tensors.steps import DivergenceError


def sample_images(
    loaded: LoadedPipeline,
    prompts: Sequence[tuple[Prompt, int]],
    *,
    sampling_seed: int,
    num_inference_steps: int,
    guidance_scale: float,
) -> torch.Tensor:
    """One batch of images through the pipeline's own scheduler.

    Args:
        loaded: The model.
        prompts: (prompt, image index) of each image; they key its initial noise.
        sampling_seed: See :func:`initial_noise`.
        num_inference_steps: Steps of the scheduler.
        guidance_scale: s of classifier-free guidance; 1 for none.

    Returns:
        Images (B, 3, H, W), uint8, on the CPU.
    """
    keys = [(prompt.id, index) for prompt, index in prompts]
    noise = initial_noise(keys, sampling_seed, loaded.latent_shape)
    images = _sampled(loaded, [prompt.text for prompt, _ in prompts], noise, num_inference_steps, guidance_scale, "pt")
    pixels: torch.Tensor = (images.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return pixels


def sample_latents(
    loaded: LoadedPipeline,
    prompts: Sequence[str],
    generator: torch.Generator,
    *,
    num_inference_steps: int,
    guidance_scale: float,
) -> torch.Tensor:
    """Images from prompts as latents (B, C, h, w), scaled, to train on; see :func:`sample_images`.

    Args:
        loaded: The model.
        prompts: B of them.
        generator: Draws the initial noise, and whatever the pipeline's scheduler draws.
        num_inference_steps: Steps of the scheduler.
        guidance_scale: s of classifier-free guidance; 1 for none.
    """
    noise = torch.randn((len(prompts), *loaded.latent_shape), generator=generator)
    return _sampled(loaded, prompts, noise, num_inference_steps, guidance_scale, "latent", generator)


def _sampled(
    loaded: LoadedPipeline,
    prompts: Sequence[str],
    noise: torch.Tensor,
    num_inference_steps: int,
    guidance_scale: float,
    output_type: str,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """The output of the pipeline's own call for prompts and initial noise."""
    # Embed each distinct prompt once; the pipeline would repeat the work for each image.
    texts = sorted(set(prompts))
    conditioning = loaded.encode_prompts(texts)[[texts.index(prompt) for prompt in prompts]]
    output: torch.Tensor = loaded.pipeline(
        **loaded.architecture.sampling_arguments(conditioning, loaded.unconditional(len(prompts))),
        latents=noise.to(conditioning.encoder_hidden_states),
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        generator=generator,
        output_type=output_type,
    ).images
    if not torch.isfinite(output).all():
        is_lost = ~torch.isfinite(output).flatten(1).all(dim=1)
        lost = next(prompt for prompt, gone in zip(prompts, is_lost.tolist(), strict=True) if gone)
        raise DivergenceError(
            f"the model's images of {lost!r} are not finite: its weights have diverged, or {output.dtype} is too "
            "narrow for it; sample in float32 (sampling.precision), or leave the model out"
        )
    return output


def fill(
    loaded: LoadedPipeline,
    store: ImageStore,
    wanted: Sequence[tuple[Prompt, int]],
    sampling: Mapping[str, Any],
    pieces: Callable[..., Iterator[int]],
) -> None:
    """Generates the images that a store lacks, in batches of fixed composition, so that a restart changes no bit.

    Args:
        loaded: The model.
        store: The store that receives the images.
        wanted: (prompt, image index) of each image.
        sampling: ``seed``, ``num_inference_steps``, ``guidance_scale`` and ``batch_size``.
        pieces: Numbers the batches that are to be made; see :meth:`resalign.running.attempt.Attempt.pieces`.
    """
    size = sampling["batch_size"]
    batches = [wanted[start : start + size] for start in range(0, len(wanted), size)]
    todo = [batch for batch in batches if not all(store.has(*image) for image in batch)]
    try:
        for position in pieces(len(todo), keep=store.list_made):
            batch = todo[position]
            images = sample_images(
                loaded,
                batch,
                sampling_seed=sampling["seed"],
                num_inference_steps=sampling["num_inference_steps"],
                guidance_scale=sampling["guidance_scale"],
            )
            for (prompt, index), image in zip(batch, images, strict=True):
                if not store.has(prompt, index):
                    store.save(prompt, index, image)
    finally:
        if todo:
            store.list_made()


def partial_sample(
    loaded: LoadedPipeline,
    weights: Params,
    conditioning: Conditioning,
    unconditional: Conditioning,
    *,
    guidance_scale: float,
    num_inference_steps: int,
    generator: torch.Generator,
    exact: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Runs a random part of a DDIM sampling with given weights.

    Args:
        loaded: Supplies network and noise schedule.
        weights: θ, by name.
        conditioning: Embedded prompts, B of them.
        unconditional: The embedding of no prompt, B times.
        guidance_scale: s of classifier-free guidance.
        num_inference_steps: Steps of a whole sampling.
        generator: Draws the initial noise and how far to go (the same for the whole batch).
        exact: Whether timesteps are evenly spaced, so that the latents have the noise of the timestep that is
            returned. DDIM steps by 1000/N wherever the model's own settings put the next timestep: those of the
            spacing `linspace` are 1000/(N − 1) apart, and the latents 1000/N(N − 1) timesteps noisier than they say.

    Returns:
        Latents x_t (B, C, h, w) and the timestep t of the next step, (B,).

    Raises:
        ValueError: If the model is a flow, for which DDIM is not defined.
    """
    if not isinstance(loaded.noise_scheduler, diffusers.DDPMScheduler):
        raise ValueError(f"partial sampling by DDIM needs a diffusion model, got {loaded.architecture.name}")
    spacing = {"timestep_spacing": "leading"} if exact else {}
    scheduler = diffusers.DDIMScheduler.from_config(loaded.noise_scheduler.config, clip_sample=False, **spacing)
    scheduler.set_timesteps(num_inference_steps)
    batch_size = len(conditioning)
    shape = (batch_size, *loaded.latent_shape)
    latents = torch.randn(shape, generator=generator).to(conditioning.encoder_hidden_states)
    end = int(torch.randint(num_inference_steps, (1,), generator=generator))
    both = concatenate([unconditional, conditioning])
    with torch.no_grad():
        for t in scheduler.timesteps[:end]:
            timesteps = t.expand(2 * batch_size).to(latents.device)
            doubled = NoisyBatch(torch.cat([latents] * 2), timesteps, both, torch.empty(0))
            empty, conditional = predict(loaded.denoiser, weights, doubled).chunk(2)
            noise_pred = empty + guidance_scale * (conditional - empty)
            latents = scheduler.step(noise_pred, t, latents).prev_sample
    return latents, scheduler.timesteps[end].expand(batch_size).to(latents.device)
