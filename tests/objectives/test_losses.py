"""Every loss on the tiny UNet, against the network called by hand; their signs are what these tests are for."""

from collections.abc import Callable

import pytest
import torch

from resalign.contracts import Run
from resalign.diffusion.batches import EncodedImages, NoisyBatch
from resalign.diffusion.conditioning import Conditioning
from resalign.diffusion.models import Models
from resalign.diffusion.parametrisation import named_weights
from resalign.diffusion.prediction import predict
from resalign.objectives.denoising import denoising_loss, harmful_loss, per_example_error, prior_preserving_loss
from resalign.objectives.distillation import distillation_loss, reversed_distillation_loss
from resalign.objectives.erasure import erasure_loss
from resalign.tensors.named import Named, add, detached, gradient, norm
from tests.nearness import assert_near

# A batch of one and a batch of six need not take the same kernels.
FLOAT32 = 1e-5


@pytest.fixture(scope="module")
def batch(encoded_images: EncodedImages) -> NoisyBatch:
    """Six noisy examples, from little noise to much."""
    return encoded_images.draw_stratified(6, Run(seed=0).generator("objectives"))


@pytest.fixture(scope="module")
def prior(encoded_images: EncodedImages) -> NoisyBatch:
    return encoded_images.draw_stratified(6, Run(seed=1).generator("objectives"))


@pytest.fixture(scope="module")
def original(models: Models) -> dict[str, torch.Tensor]:
    return named_weights(models.denoiser)


@pytest.fixture(scope="module")
def moved(original: Named) -> dict[str, torch.Tensor]:
    return {name: tensor + 0.02 for name, tensor in original.items()}


def output(models: Models, weights: Named, batch: NoisyBatch, conditioning: Conditioning | None = None) -> torch.Tensor:
    hidden = (conditioning or batch.conditioning).encoder_hidden_states
    arguments = (batch.noisy_latents, batch.timesteps, hidden)
    with torch.no_grad():
        prediction: torch.Tensor = torch.func.functional_call(models.denoiser, dict(weights), arguments).sample
    return prediction


def errors(models: Models, batch: NoisyBatch) -> torch.Tensor:
    """Each example's mean squared error, one example at a time."""
    hidden = batch.conditioning.encoder_hidden_states
    with torch.no_grad():
        outputs = [
            models.denoiser(batch.noisy_latents[i, None], batch.timesteps[i], hidden[i, None]).sample
            for i in range(len(batch.timesteps))
        ]
    return torch.stack([(o[0] - t).square().mean() for o, t in zip(outputs, batch.target, strict=True)])


# --- denoising, its prior-preserving form, its negative ---------------------------------------------------------------


def test_denoising_losses_are_means_of_the_networks_own_errors(
    models: Models, original: Named, batch: NoisyBatch, prior: NoisyBatch
) -> None:
    each, denoiser = errors(models, batch), models.denoiser
    assert each.std() > 0
    assert_near(per_example_error(denoiser, original, batch), each, FLOAT32)
    assert_near(denoising_loss(denoiser, original, batch), each.mean(), FLOAT32)
    with_prior = each.mean() + 0.3 * errors(models, prior).mean()
    assert_near(prior_preserving_loss(denoiser, original, batch, prior, 0.3), with_prior, FLOAT32)
    harmful = harmful_loss(denoiser, original, batch)
    assert harmful == -denoising_loss(denoiser, original, batch) < 0
    assert harmful_loss(denoiser, original, batch, 1e3) == harmful  # no example has reached the cap


def test_descending_the_harmful_loss_spoils_the_harmful_images(
    models: Models, original: Named, batch: NoisyBatch
) -> None:
    weights = detached(original, requires_grad=True)
    slope = gradient(harmful_loss(models.denoiser, weights, batch), weights)
    spoiled = add(weights, slope, -0.1 / norm(slope))
    assert denoising_loss(models.denoiser, spoiled, batch) > denoising_loss(models.denoiser, weights, batch) + 0.01


@pytest.mark.parametrize("below", [0, 3])
def test_truncation_caps_the_loss_and_kills_the_gradient_of_examples_beyond(
    models: Models, original: Named, batch: NoisyBatch, below: int
) -> None:
    weights, each = detached(original, requires_grad=True), errors(models, batch)
    # The cap lies between two examples, so that no rounding decides.
    cap = (each.sort().values[below - 1 : below + 1].mean() if below else each.min() / 2).item()
    kept = each <= cap
    assert kept.sum() == below
    loss = harmful_loss(models.denoiser, weights, batch, cap)
    assert_near(loss, -each.clamp(max=cap).mean(), FLOAT32)
    expected = -per_example_error(models.denoiser, weights, batch)[kept].sum() / len(each)
    slope, goal = gradient(loss, weights), gradient(expected, weights)
    assert norm(add(slope, goal, -1.0)) <= 1e-5 * norm(goal)
    assert bool(below) == (norm(slope) > 0)


# --- distillation -----------------------------------------------------------------------------------------------------


def test_distillation_is_the_mean_squared_distance_of_the_predictions(
    models: Models, original: Named, moved: Named, batch: NoisyBatch
) -> None:
    expected = (output(models, moved, batch) - output(models, original, batch)).square().mean()
    assert expected > 0
    assert_near(distillation_loss(models.denoiser, moved, original, batch), expected, FLOAT32)
    # The images' noise plays no part.
    other = NoisyBatch(batch.noisy_latents, batch.timesteps, batch.conditioning, torch.zeros_like(batch.target))
    assert distillation_loss(models.denoiser, moved, original, other) == distillation_loss(
        models.denoiser, moved, original, batch
    )
    # It is zero at the original model.
    weights = detached(original, requires_grad=True)
    loss = distillation_loss(models.denoiser, weights, original, batch)
    assert loss.item() == 0
    assert norm(gradient(loss, weights)) == 0


def test_reversed_distillation_pushes_examples_away_up_to_its_truncation(
    models: Models, original: Named, moved: Named, batch: NoisyBatch
) -> None:
    def loss(weights: Named, weight: float, truncation: float) -> torch.Tensor:
        return reversed_distillation_loss(
            models.denoiser, weights, original, batch, weight=weight, truncation=truncation
        )

    away = distillation_loss(models.denoiser, moved, original, batch)
    assert away > 0.01
    assert_near(loss(moved, 0.3, 100.0), denoising_loss(models.denoiser, moved, batch) - 0.3 * away, FLOAT32)
    at_original = output(models, original, batch)
    distances = (output(models, moved, batch) - at_original).square().mean(dim=(1, 2, 3))
    cap = float(distances.sort().values[2:4].mean())
    near, leaves = distances < cap, detached(moved, requires_grad=True)
    assert near.sum() == 3
    pushed = (predict(models.denoiser, leaves, batch) - at_original).square().mean(dim=(1, 2, 3))
    expected = denoising_loss(models.denoiser, leaves, batch) - 2.0 * pushed[near].sum() / len(near)
    found = gradient(loss(leaves, 2.0, cap), leaves)
    assert norm(add(found, gradient(expected, leaves), -1.0)) < 1e-4 * norm(found)


# --- ESD's target -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def empty(models: Models, batch: NoisyBatch) -> Conditioning:
    return models.unconditional(len(batch.timesteps))


@pytest.mark.parametrize("eta", [0.0, 1.0, 2.0])
def test_erasure_is_the_distance_to_the_original_steered_away(
    models: Models, original: Named, moved: Named, batch: NoisyBatch, empty: Conditioning, eta: float
) -> None:
    conditional, unconditional = output(models, original, batch), output(models, original, batch, empty)
    assert (conditional - unconditional).abs().max() > 1e-3, "the tiny model ignores its prompts"
    # ε₀(c) − [ε₀(∅) − η(ε₀(c) − ε₀(∅))] = (1 + η)(ε₀(c) − ε₀(∅)); with the sign of η flipped it would be (1 − η).
    at_original = erasure_loss(models.denoiser, original, original, batch, empty, eta)
    assert_near(at_original, (1 + eta) ** 2 * (conditional - unconditional).square().mean(), 1e-4)
    target = unconditional - eta * (conditional - unconditional)
    expected = (output(models, moved, batch) - target).square().mean()
    assert_near(erasure_loss(models.denoiser, moved, original, batch, empty, eta), expected, FLOAT32)


def test_training_on_erasure_steers_away_from_the_prompt(
    models: Models, original: Named, batch: NoisyBatch, empty: Conditioning
) -> None:
    weights = detached(original, requires_grad=True)
    slope = gradient(erasure_loss(models.denoiser, weights, original, batch, empty, 1.0), weights)
    before, unconditional = output(models, original, batch), output(models, original, batch, empty)
    now = output(models, detached(add(weights, slope, -0.02 / norm(slope))), batch)
    assert ((now - before) * (before - unconditional)).sum() < 0


@pytest.mark.parametrize("name", ["distillation", "reversed", "erasure"])
def test_no_gradient_reaches_the_model_that_is_the_reference(
    models: Models, original: Named, moved: Named, batch: NoisyBatch, empty: Conditioning, name: str
) -> None:
    denoiser = models.denoiser
    losses: dict[str, Callable[[Named, Named], torch.Tensor]] = {
        "distillation": lambda w, o: distillation_loss(denoiser, w, o, batch),
        "reversed": lambda w, o: reversed_distillation_loss(denoiser, w, o, batch, weight=0.5, truncation=1.0),
        "erasure": lambda w, o: erasure_loss(denoiser, w, o, batch, empty, 1.0),
    }
    weights, reference = detached(moved, requires_grad=True), detached(original, requires_grad=True)
    losses[name](weights, reference).backward()
    assert all(tensor.grad is None for tensor in reference.values())
    assert any(tensor.grad is not None and tensor.grad.abs().max() > 0 for tensor in weights.values())
