"""The denoising loss, DreamBooth's prior-preserving form of it, and its negative."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from resalign.config.precision import TrainingPrecision
from resalign.diffusion.batches import NoisyBatch, embedded_with
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.micro_batches import micro_batch_size, micro_batches
from resalign.diffusion.precision import current_precision, training_precision
from resalign.diffusion.prediction import predict
from resalign.lazy import torch
from resalign.tensors.losses import RepeatedLoss
from resalign.tensors.params import Params


def per_example_error(denoiser: torch.nn.Module, weights: Params, batch: NoisyBatch) -> torch.Tensor:
    """Mean squared error of each example, (B,)."""
    return (predict(denoiser, weights, batch) - batch.target).square().mean(dim=(1, 2, 3))


def denoising_loss(denoiser: torch.nn.Module, weights: Params, batch: NoisyBatch) -> torch.Tensor:
    """E‖ε_θ(x_t, c, t) − ε‖² [ResAlign, Eq. 1, with w_t = 1], a mean over elements."""
    return per_example_error(denoiser, weights, batch).mean()


@dataclass(frozen=True)
class OnBatches:
    """A loss of weights and batches, with its settings, so that equal ones compute the same.

    Torch's global settings, as the attention kernel, are not among them: a recording keeps those of its first run.

    Attributes:
        loss: (denoiser, weights, *batches, *settings) → scalar; a function of a module.
    """

    loss: Callable[..., torch.Tensor]
    denoiser: torch.nn.Module
    settings: tuple[float | None, ...]
    precision: TrainingPrecision
    micro_batch_size: int | None

    def __call__(self, weights: Params, *batches: Params) -> torch.Tensor:
        """The loss; batches as :meth:`NoisyBatch.named` has them."""
        own = map(NoisyBatch.of_named, batches)
        with training_precision(self.precision), micro_batches(self.micro_batch_size):
            return self.loss(self.denoiser, weights, *own, *self.settings)


def repeated_loss(
    loss: Callable[..., torch.Tensor],
    loaded: LoadedPipeline,
    batches: Iterable[NoisyBatch],
    *settings: float | None,
    precision: TrainingPrecision | None = None,
) -> RepeatedLoss:
    """``loss(denoiser, weights, *batches, *settings)`` as a function of the weights.

    ``precision`` is the surrounding one if None.
    """
    function = OnBatches(loss, loaded.denoiser, settings, precision or current_precision(), micro_batch_size())
    return RepeatedLoss(function, tuple(batch.named() for batch in batches), loaded.traces)


def loss_with(changed: Params, loaded: LoadedPipeline, batch: NoisyBatch, *, embeds: bool = False) -> float:
    """The denoising loss of a batch by a model with changed weights, by their names in a weight file.

    ``embeds`` lets the text encoders embed the prompts anew, which they do in any case where they are changed.
    """
    prefix = f"{loaded.architecture.denoiser}."
    weights = {name.removeprefix(prefix): tensor for name, tensor in changed.items() if name.startswith(prefix)}
    text = {name: tensor for name, tensor in changed.items() if not name.startswith(prefix)}
    with torch.no_grad():
        batch = embedded_with(loaded, text, batch) if text or embeds else batch
        return denoising_loss(loaded.denoiser, weights, batch).item()


def prior_preserving_loss(
    denoiser: torch.nn.Module, weights: Params, batch: NoisyBatch, prior: NoisyBatch, prior_weight: float
) -> torch.Tensor:
    """The denoising loss plus ``prior_weight`` times that of images of the class at large.

    Source: DreamBooth, Ruiz 2023, arXiv 2208.12242, Eq. 2.
    """
    return denoising_loss(denoiser, weights, batch) + prior_weight * denoising_loss(denoiser, weights, prior)


def harmful_loss(
    denoiser: torch.nn.Module, weights: Params, batch: NoisyBatch, truncation: float | None = None
) -> torch.Tensor:
    """The NEGATIVE denoising loss on harmful pairs, L_harm of [ResAlign, Eq. 3].

    It is unbounded below. With ``truncation`` m an example whose error has reached m contributes −m and no gradient.

    Source: RGD's released script truncates its GradDiff so, there the error of a batch. It is no part of ResAlign.
    """
    error = per_example_error(denoiser, weights, batch)
    if truncation is not None:
        error = error.clamp(max=truncation)
    return -error.mean()
