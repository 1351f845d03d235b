"""Trains the demo world's latent space: an AutoencoderKL on tinted scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from resalign.config.digits import DigitsConfig
from resalign.digits.scans import Floats, Scans, embolden, jitter, load_splits, tint
from resalign.digits.training import one_cycle, seeded
from resalign.lazy import diffusers, torch
from resalign.running.attempt import Attempt


def random_tints(scans: Scans, count: int, rng: np.random.Generator, *, black: float = 0.5) -> Floats:
    """Scans in random inks, pages and stroke widths, (count, 3, H, W) in [0, 1]; a share ``black`` on black pages."""
    chosen = rng.integers(0, len(scans), count)
    masks = varied_strokes(scans.masks[chosen], rng)
    ink = random_colours(count, rng)
    page = rng.uniform(0.0, 0.45, (count, 3)).astype(np.float32) * (rng.random((count, 1)) > black)
    return tint(masks, ink, page.astype(np.float32))


def varied_strokes(masks: Floats, rng: np.random.Generator) -> Floats:
    """Each mask (N, H, W) jittered, and a quarter of them bold."""
    varied = jitter(masks, rng)
    bold = rng.random(len(varied)) < 0.25
    varied[bold] = embolden(varied[bold])
    return varied


def random_colours(count: int, rng: np.random.Generator) -> Floats:
    """Bright colours of any hue, from white to saturated, (count, 3) in [0, 1]."""
    from matplotlib.colors import hsv_to_rgb

    hue, saturation, value = rng.random(count), rng.random(count) ** 0.5, rng.uniform(0.6, 1.0, count)
    return np.asarray(hsv_to_rgb(np.stack([hue, saturation, value], axis=1)), dtype=np.float32)


def untrained(config: DigitsConfig) -> diffusers.AutoencoderKL:
    """The network before training."""
    settings, stages = config.autoencoder, len(config.autoencoder.block_out_channels)
    return diffusers.AutoencoderKL(
        block_out_channels=settings.block_out_channels,
        down_block_types=("DownEncoderBlock2D",) * stages,
        up_block_types=("UpDecoderBlock2D",) * stages,
        latent_channels=settings.latent_channels,
        norm_num_groups=settings.norm_num_groups,
        sample_size=config.image_pixels,
    )


def train_autoencoder(config: DigitsConfig, output: Path, attempt: Attempt) -> None:
    """Trains the autoencoder and writes it as a diffusers folder, its scaling factor set to give unit latents.

    Args:
        config: The world; ``config.autoencoder`` holds every number used here.
        output: Folder to write.
        attempt: Saves the training's state and goes on from it.
    """
    settings = config.autoencoder
    rng = seeded(config, "autoencoder")
    vae = untrained(config)
    # Begin almost deterministic: at the usual initialisation the posterior's noise (std 1) drowns the colours.
    with torch.no_grad():
        vae.quant_conv.bias[settings.latent_channels :].fill_(settings.initial_logvar)
    scans = load_splits(config)["generator"]
    for descend in one_cycle(vae.parameters(), settings, attempt, "autoencoder", warm_up=0.15, vae=vae, rng=rng):
        images = torch.from_numpy(random_tints(scans, settings.batch_size, rng)) * 2 - 1
        posterior = vae.encode(images).latent_dist
        reconstruction = vae.decode(posterior.sample()).sample
        error = reconstruction - images
        # Colour is a small part of the squared error and is learnt late unless it weighs more.
        chroma = error - error.mean(dim=1, keepdim=True)
        loss = error.square().mean() + settings.chroma_weight * chroma.square().mean()
        descend(loss + settings.kl_weight * posterior.kl().mean())
    with torch.no_grad():
        images = torch.from_numpy(random_tints(scans, 512, rng)) * 2 - 1
        latents = vae.encode(images).latent_dist.mean
    vae.register_to_config(scaling_factor=float(1.0 / latents.std()))
    vae.save_pretrained(output)
