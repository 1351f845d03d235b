"""Distillation to the original model, on the tiny UNet."""

import torch

from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.models import Models
from resalign.diffusion.parametrisation import named_weights
from resalign.objectives.distillation import distillation_loss
from resalign.tensors.named import detached, gradient, norm
from tests.nearness import assert_near


def moved(models: Models) -> dict[str, torch.Tensor]:
    return {name: tensor + 0.02 for name, tensor in named_weights(models.denoiser).items()}


def output(models: Models, weights: dict[str, torch.Tensor], batch: NoisyBatch) -> torch.Tensor:
    arguments = (batch.noisy_latents, batch.timesteps, batch.conditioning.encoder_hidden_states)
    with torch.no_grad():
        found: torch.Tensor = torch.func.functional_call(models.denoiser, weights, arguments).sample
    return found


def test_zero_at_the_original_model(models: Models, batch: NoisyBatch) -> None:
    weights = detached(named_weights(models.denoiser), requires_grad=True)
    loss = distillation_loss(models.denoiser, weights, named_weights(models.denoiser), batch)
    assert loss.item() == 0
    assert norm(gradient(loss, weights)) == 0


def test_mean_squared_distance_of_the_predictions(models: Models, batch: NoisyBatch) -> None:
    original = named_weights(models.denoiser)
    expected = (output(models, moved(models), batch) - output(models, original, batch)).square().mean()
    assert expected > 0
    assert_near(distillation_loss(models.denoiser, moved(models), original, batch), expected, 1e-5)


def test_the_images_noise_plays_no_part(models: Models, batch: NoisyBatch) -> None:
    other = NoisyBatch(batch.noisy_latents, batch.timesteps, batch.conditioning, torch.zeros_like(batch.target))
    arguments = (models.denoiser, moved(models), named_weights(models.denoiser))
    assert distillation_loss(*arguments, batch) == distillation_loss(*arguments, other)


def test_no_gradient_reaches_the_original(models: Models, batch: NoisyBatch) -> None:
    weights, original = (
        detached(moved(models), requires_grad=True),
        detached(named_weights(models.denoiser), requires_grad=True),
    )
    distillation_loss(models.denoiser, weights, original, batch).backward()
    assert all(tensor.grad is None for tensor in original.values())
    assert any(tensor.grad is not None and tensor.grad.abs().max() > 0 for tensor in weights.values())
