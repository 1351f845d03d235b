"""LCFDSD: fine-tunes on clean images while a contrast parts the latents of clean and of harmful ones.

Source: Pan 2024, NeurIPS, "Leveraging Catastrophic Forgetting to Develop Safe Diffusion Models against Malicious
Finetuning", by its released code. Variants: lt transforms the latents, ng the noise. Of every image y is taken from
x̂₀, and the contrast is d(y, own centre) − λ_c d(y, other centre), d Euclidean over a latent, each centre the running
mean of y over clean or harmful images, the present one among them.
As released the contrast is a plain number without a gradient (``contrast: detached``): lt then is fine-tuning on the
clean images, in whose batches a harmful image is an empty slot, and ng the same under a shifted noise. Published rows
are of that.
Deviations: the contrast has a gradient, and each image's is weighted by ᾱ_t, because x̂₀ of a noise prediction has the
factor 1/√ᾱ_t; a batch has fixed numbers of clean and harmful images, of the released sets' proportion; the rate is
constant (released: a cosine), the precision float32. It offers no ``step_gradient``: its centres live between steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from resalign.config.passes import Passes
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.forward_process import clean_and_noise, levels
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import Scope, named_weights, select
from resalign.diffusion.prediction import predict
from resalign.lazy import torch
from resalign.tensors.params import Params
from resalign.unlearning._descent import DescentConfig, Gradient, Logged, descend, of_loss

CONTRAST_WEIGHTS = {"lt": 5e-5, "ng": 5e-3}
CLEAN, HARMFUL = 0, 1


class Config(DescentConfig):
    """The released code's defaults: 1,000 clean and 452 harmful images, four a step."""

    variant: Literal["lt", "ng"] = Field("lt", description="lt transforms the latents, ng the noise")
    contrast: Literal["differentiable", "detached"] = Field(
        "differentiable", description="detached: without a gradient, as released and as in published rows"
    )
    scope: Scope = "full"
    steps: int = Field(2000, ge=0)
    lr: float = Field(1e-5, gt=0)
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    weight_decay: float = Field(1e-2, ge=0)
    max_grad_norm: float | None = Field(1.0, gt=0)
    batch_size: int = Field(1, gt=0, description="harmful images a step")
    retain_batch_size: int = Field(3, gt=0, description="clean images a step")
    contrast_weight: float | None = Field(None, ge=0, description="λ_tot; null for 5e-5 (lt) or 5e-3 (ng)")
    other_weight: float = Field(1.0, ge=0, description="λ_c, weight of the distance from the other centre")
    offset: float = Field(100.0, description="lt: y is x̂₀ plus it where harmful, the negative of that where clean")
    noise_shift: float = Field(1.0, description="ng: added to the noise where clean, subtracted where harmful")
    epoch_steps: int = Field(363, gt=0, description="steps after which a centre counts as one image again")

    @property
    def denoiser_passes(self) -> Passes:
        """Of a step; a detached contrast takes no gradient of harmful images."""
        harmful = Passes(forward=1) if self.contrast == "detached" else Passes(gradient=1)
        return Passes(gradient=self.retain_batch_size) + harmful * self.batch_size


@dataclass(frozen=True)
class Centres:
    """The running means of y over clean and over harmful images.

    Attributes:
        means: (2, C, h, w).
        counts: Images of each mean, (2,), its start being one.
    """

    means: torch.Tensor
    counts: torch.Tensor

    def include(self, kind: int, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Moves a mean by one more y (C, h, w); returns the own and the other centre, (C, h, w) each."""
        self.counts[kind] += 1
        self.means[kind] += (y.detach() - self.means[kind]) / self.counts[kind]
        return self.means[kind].clone(), self.means[1 - kind].clone()

    def restart_after(self, images: int) -> None:
        """Lets each mean count as one image if so many or more have been included since it last did."""
        if int(self.counts.sum()) - len(self.counts) >= images:
            self.counts.fill_(1)


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Descends denoising of the clean images plus the contrast of all.

    Returns:
        The weights in scope, by their names in a weight file.
    """
    start = torch.rand((2, *loaded.latent_shape), generator=run.generator("lcfdsd", "centres")).to(loaded.device)
    centres = Centres(start, torch.ones(2, dtype=torch.long))
    original = named_weights(loaded.denoiser)
    direction = contrastive_gradient(loaded, data, config, centres)
    names, held = select(original, config.scope), {"means": centres.means, "counts": centres.counts}
    trained = descend(original, names, direction, config, run, method="lcfdsd", centres=held)
    return loaded.named(trained)


def contrastive_gradient(loaded: LoadedPipeline, data: UnlearningData, config: Config, centres: Centres) -> Gradient:
    """The gradient of (Σ_clean denoising + λ_tot Σ_all ᾱ_t · contrast) / images; it moves the centres."""
    slots = config.batch_size + config.retain_batch_size
    published = CONTRAST_WEIGHTS[config.variant]
    weight = published if config.contrast_weight is None else config.contrast_weight
    is_live = config.contrast == "differentiable"

    def loss(weights: Params, stream: torch.Generator) -> tuple[torch.Tensor, Logged]:
        centres.restart_after(config.epoch_steps * slots)
        clean = noise_shifted(loaded, data.retain.draw(config.retain_batch_size, stream), CLEAN, config)
        harmful = noise_shifted(loaded, data.forget.draw(config.batch_size, stream), HARMFUL, config)
        prediction = predict(loaded.denoiser, weights, clean)
        denoising = (prediction - clean.target).square().mean(dim=(1, 2, 3)).sum() / slots
        with torch.set_grad_enabled(is_live):
            apart = [
                contrasts(loaded, clean, prediction, CLEAN, config, centres),
                contrasts(loaded, harmful, predict(loaded.denoiser, weights, harmful), HARMFUL, config, centres),
            ]
            contrast = torch.cat(apart).sum() / slots
        return denoising + weight * contrast, {"retain_loss": denoising.item(), "contrast": contrast.item()}

    return of_loss(loss)


def noise_shifted(loaded: LoadedPipeline, batch: NoisyBatch, kind: int, config: Config) -> NoisyBatch:
    """For ng x_t of a shifted noise; the target stays that of the noise itself."""
    if config.variant == "lt":
        return batch
    shift = config.noise_shift if kind == CLEAN else -config.noise_shift
    _, sigma = levels(loaded.noise_scheduler, batch.timesteps)
    return replace(batch, noisy_latents=batch.noisy_latents + sigma * shift)


def contrasts(
    loaded: LoadedPipeline, batch: NoisyBatch, prediction: torch.Tensor, kind: int, config: Config, centres: Centres
) -> torch.Tensor:
    """ᾱ_t (d(y, own) − λ_c d(y, other)) of each image, (B,), each of which moves its centre first."""
    y, _ = clean_and_noise(loaded.noise_scheduler, batch.noisy_latents, batch.timesteps, prediction)
    if config.variant == "lt":
        y = y + config.offset if kind == HARMFUL else -y - config.offset
    alpha, _ = levels(loaded.noise_scheduler, batch.timesteps)
    values = [contrast_of(one, *centres.include(kind, one), config.other_weight) for one in y]
    return alpha.flatten().square() * torch.stack(values)


def contrast_of(y: torch.Tensor, own: torch.Tensor, other: torch.Tensor, other_weight: float) -> torch.Tensor:
    """‖y − own‖ − λ_c ‖y − other‖ of one latent."""
    return torch.linalg.vector_norm(y - own) - other_weight * torch.linalg.vector_norm(y - other)
