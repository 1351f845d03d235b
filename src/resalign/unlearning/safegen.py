"""SafeGen: teaches self-attention to denoise images of a concept towards their mosaics, whatever the prompt.

Source: Li 2024, CCS, arXiv 2404.06666. Prompts are always the empty one.
The published target n + z − z_mosaic is a noise by which x̂₀ is z − √((1 − ᾱ)/ᾱ)(z − z_mosaic): the mosaic only where
signal and noise are equal, before that too little of it, and beyond an overshoot. ``target: consistent`` weights the
difference by √(ᾱ/(1 − ᾱ)), by which x̂₀ is the mosaic at every step.
Deviations: the loss is of the noise for every kind of prediction (the released branch for v-prediction has another
target); 5 accumulated images are one batch of 5; float32.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from resalign.config.passes import Passes
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.forward_process import clean_and_noise, levels
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.diffusion.prediction import predict
from resalign.lazy import torch
from resalign.tensors.params import Params, detached
from resalign.unlearning._descent import DescentConfig, Gradient, Logged, descend, of_loss

# It trains self-attention as UNets have it: attn1.
ARCHITECTURES = ("stable_diffusion", "stable_diffusion_xl")


class Config(DescentConfig):
    """Published defaults."""

    steps: int = Field(1000, ge=0)
    lr: float = Field(1e-5, gt=0)
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    weight_decay: float = Field(1e-2, ge=0)
    max_grad_norm: float | None = Field(1.0, gt=0)
    batch_size: int = Field(5, gt=0, description="pairs of image and mosaic, and as many images to retain")
    mosaic_weight: float = Field(
        0.1, ge=0, description="weight of the mosaics' term; the released parser does not know the option, and has 0.5"
    )
    retain_weight: float = Field(0.9, ge=0, description="weight of denoising on the retain set")
    mosaic_tiles: int = Field(
        8, gt=0, description="of a mosaic, along an edge: few enough to hide the concept; no source states the number"
    )
    target: Literal["published", "consistent"] = Field(
        "published", description="of the noise; consistent: one by which x̂₀ is the mosaic at every step"
    )
    ema_decay: float = Field(0.9999, ge=0, lt=1, description="largest decay of the moving average, which is the result")

    def needs(self) -> tuple[str, ...]:
        """The mosaics."""
        return ("mosaic",)

    @property
    def denoiser_passes(self) -> Passes:
        """Of a step: as many images to retain as mosaics."""
        return Passes(gradient=2 * self.batch_size)


def step_gradient(loaded: LoadedPipeline, data: UnlearningData, config: Config) -> Gradient:
    """The gradient of 0.1·MSE(ε_θ(x_t, ∅), n + z − z_mosaic) + 0.9·MSE(ε_θ(x_t', ∅), n'), t the same for both."""
    scheduler, mosaic = loaded.noise_scheduler, data.mosaic
    if mosaic is None:
        raise ValueError("safegen needs the mosaics of the forget set, and the data has none")
    empty = loaded.unconditional(config.batch_size)

    def error(weights: Params, batch: NoisyBatch, away: torch.Tensor | float) -> torch.Tensor:
        """MSE of the predicted noise from the noise plus ``away``."""
        prediction = predict(loaded.denoiser, weights, replace(batch, conditioning=empty))
        given = scheduler, batch.noisy_latents, batch.timesteps
        predicted_noise, noise = (clean_and_noise(*given, output)[1] for output in (prediction, batch.target))
        return (predicted_noise - noise - away).square().mean()

    def loss(weights: Params, stream: torch.Generator) -> tuple[torch.Tensor, Logged]:
        rows, retained = (
            torch.randint(len(images), (config.batch_size,), generator=stream) for images in (data.forget, data.retain)
        )
        positions = torch.randint(scheduler.config.num_train_timesteps, (config.batch_size,), generator=stream)
        unsafe, benign = data.forget.at(rows, positions, stream), data.retain.at(retained, positions, stream)
        away = data.forget.latents[rows] - mosaic.latents[rows]
        if config.target == "consistent":
            alpha, sigma = levels(scheduler, unsafe.timesteps)
            away = away * alpha / sigma
        forget, retain = error(weights, unsafe, away), error(weights, benign, 0.0)
        total = config.mosaic_weight * forget + config.retain_weight * retain
        return total, {"forget_loss": forget.item(), "retain_loss": retain.item()}

    return of_loss(loss)


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Descends both errors in attn1.

    Returns:
        The moving average of attn1's weights and biases, by their names in a weight file.
    """
    original = named_weights(loaded.denoiser)
    names = [name for name in original if ".attn1." in name]
    average, taken = detached({name: original[name] for name in names}), torch.zeros((), dtype=torch.long)

    def averaged(variables: Params) -> None:
        decay = decay_after(int(taken), config.ema_decay)
        for name, tensor in average.items():
            tensor.lerp_(variables[name], 1 - decay)
        taken.add_(1)

    direction = step_gradient(loaded, data, config)
    held = {"average": average, "taken": taken}
    descend(original, names, direction, config, run, method="safegen", stepped=averaged, averaging=held)
    return loaded.named(average)


def decay_after(steps: int, largest: float) -> float:
    """The average's decay after a number of earlier steps, (1 + n)/(10 + n) up to the largest; 0 at the first."""
    return min((1 + steps) / (10 + steps), largest) if steps else 0.0
