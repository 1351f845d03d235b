"""ESD's target, on the tiny UNet; the signs of its two terms are what these tests are for."""

import pytest
import torch

from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.conditioning import Conditioning
from resalign.diffusion.models import Models
from resalign.diffusion.parametrisation import named_weights
from resalign.diffusion.prediction import predict
from resalign.objectives.erasure import erasure_loss
from resalign.tensors.named import add, detached, gradient, norm
from tests.nearness import assert_near


@pytest.fixture(scope="module")
def unconditional(models: Models, batch: NoisyBatch) -> Conditioning:
    return models.unconditional(len(batch.timesteps))


@pytest.fixture(scope="module")
def predictions(models: Models, batch: NoisyBatch, unconditional: Conditioning) -> tuple[torch.Tensor, torch.Tensor]:
    """ε₀(x_t, c) and ε₀(x_t, ∅), by calling the network itself."""
    with torch.no_grad():
        conditional = models.denoiser(
            batch.noisy_latents, batch.timesteps, batch.conditioning.encoder_hidden_states
        ).sample
        empty = models.denoiser(batch.noisy_latents, batch.timesteps, unconditional.encoder_hidden_states).sample
    assert (conditional - empty).abs().max() > 1e-3, "the tiny model ignores its prompts; these tests would be empty"
    return conditional, empty


@pytest.mark.parametrize("eta", [0.0, 1.0, 2.0])
def test_at_the_original_it_is_the_whole_way_to_the_target(
    models: Models,
    batch: NoisyBatch,
    unconditional: Conditioning,
    predictions: tuple[torch.Tensor, torch.Tensor],
    eta: float,
) -> None:
    # ε₀(c) − [ε₀(∅) − η(ε₀(c) − ε₀(∅))] = (1 + η)(ε₀(c) − ε₀(∅)); with the sign of η flipped it would be (1 − η).
    conditional, empty = predictions
    original = named_weights(models.denoiser)
    found = erasure_loss(models.denoiser, original, original, batch, unconditional, eta)
    assert_near(found, (1 + eta) ** 2 * (conditional - empty).square().mean(), 1e-4)


def test_training_steers_away_from_the_prompt(
    models: Models, batch: NoisyBatch, unconditional: Conditioning, predictions: tuple[torch.Tensor, torch.Tensor]
) -> None:
    conditional, empty = predictions
    original = named_weights(models.denoiser)
    weights = detached(original, requires_grad=True)
    slope = gradient(erasure_loss(models.denoiser, weights, original, batch, unconditional, 1.0), weights)
    with torch.no_grad():
        now = predict(models.denoiser, add(weights, slope, -0.02 / norm(slope)), batch)
    # The prediction moves along −(ε₀(c) − ε₀(∅)).
    assert ((now - conditional) * (conditional - empty)).sum() < 0


def test_target_is_taken_from_the_original(
    models: Models, batch: NoisyBatch, unconditional: Conditioning, predictions: tuple[torch.Tensor, torch.Tensor]
) -> None:
    conditional, empty = predictions
    original = named_weights(models.denoiser)
    weights = {name: tensor + 0.02 for name, tensor in original.items()}
    with torch.no_grad():
        trained = predict(models.denoiser, weights, batch)
    expected = (trained - (empty - 1.5 * (conditional - empty))).square().mean()
    assert_near(erasure_loss(models.denoiser, weights, original, batch, unconditional, 1.5), expected, 1e-5)


def test_no_gradient_reaches_the_original(models: Models, batch: NoisyBatch, unconditional: Conditioning) -> None:
    original = detached(named_weights(models.denoiser), requires_grad=True)
    weights = detached(original, requires_grad=True)
    erasure_loss(models.denoiser, weights, original, batch, unconditional, 1.0).backward()
    assert all(tensor.grad is None for tensor in original.values())
