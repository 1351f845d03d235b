"""The denoising loss, its negative and its prior-preserving form, on the tiny UNet."""

import torch

from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.models import Models
from resalign.diffusion.parametrisation import named_weights
from resalign.objectives.denoising import denoising_loss, harmful_loss, per_example_error, prior_preserving_loss
from resalign.tensors.named import add, detached, gradient, norm
from tests.nearness import assert_near

# A batch of one and a batch of six need not take the same kernels.
FLOAT32 = 1e-5


def errors(models: Models, batch: NoisyBatch) -> torch.Tensor:
    """Each example's mean squared error, by calling the network itself, one example at a time."""
    with torch.no_grad():
        outputs = [
            models.denoiser(
                batch.noisy_latents[i, None], batch.timesteps[i], batch.conditioning.encoder_hidden_states[i, None]
            ).sample
            for i in range(len(batch.timesteps))
        ]
    return torch.stack([(o[0] - t).square().mean() for o, t in zip(outputs, batch.target, strict=True)])


def test_errors_are_the_networks_own(models: Models, batch: NoisyBatch) -> None:
    found = per_example_error(models.denoiser, named_weights(models.denoiser), batch)
    assert_near(found, errors(models, batch), FLOAT32)
    assert found.std() > 0


def test_denoising_loss_is_their_mean(models: Models, batch: NoisyBatch) -> None:
    found = denoising_loss(models.denoiser, named_weights(models.denoiser), batch)
    assert_near(found, errors(models, batch).mean(), FLOAT32)


def test_harmful_loss_is_its_negative(models: Models, batch: NoisyBatch) -> None:
    weights = named_weights(models.denoiser)
    assert harmful_loss(models.denoiser, weights, batch) == -denoising_loss(models.denoiser, weights, batch)
    assert harmful_loss(models.denoiser, weights, batch) < 0


def test_descending_the_harmful_loss_spoils_the_harmful_images(models: Models, batch: NoisyBatch) -> None:
    weights = detached(named_weights(models.denoiser), requires_grad=True)
    slope = gradient(harmful_loss(models.denoiser, weights, batch), weights)
    moved = add(weights, slope, -0.1 / norm(slope))
    assert denoising_loss(models.denoiser, moved, batch) > denoising_loss(models.denoiser, weights, batch) + 0.01


def test_prior_preserving_loss_adds_the_weighted_prior(models: Models, batch: NoisyBatch, prior: NoisyBatch) -> None:
    weights = named_weights(models.denoiser)
    expected = errors(models, batch).mean() + 0.3 * errors(models, prior).mean()
    assert_near(prior_preserving_loss(models.denoiser, weights, batch, prior, 0.3), expected, FLOAT32)


def test_truncation_caps_the_loss_and_kills_its_gradient(models: Models, batch: NoisyBatch) -> None:
    weights = detached(named_weights(models.denoiser), requires_grad=True)
    cap = errors(models, batch).min().item() / 2
    loss = harmful_loss(models.denoiser, weights, batch, cap)
    assert_near(loss, -cap, FLOAT32)
    assert norm(gradient(loss, weights)) == 0


def test_truncation_leaves_examples_below_the_cap_alone(models: Models, batch: NoisyBatch) -> None:
    weights = detached(named_weights(models.denoiser), requires_grad=True)
    each = errors(models, batch)
    cap = each.sort().values[2:4].mean().item()  # between two examples, so that no rounding decides
    below = each <= cap
    assert below.sum() == 3
    loss = harmful_loss(models.denoiser, weights, batch, cap)
    assert_near(loss, -each.clamp(max=cap).mean(), FLOAT32)
    kept = -per_example_error(models.denoiser, weights, batch)[below].sum() / len(each)
    found, expected = (gradient(value, weights) for value in (loss, kept))
    assert norm(add(found, expected, -1.0)) < 1e-5 * norm(expected)


def test_truncation_above_every_error_changes_nothing(models: Models, batch: NoisyBatch) -> None:
    weights = named_weights(models.denoiser)
    assert harmful_loss(models.denoiser, weights, batch, 1e3) == harmful_loss(models.denoiser, weights, batch)
