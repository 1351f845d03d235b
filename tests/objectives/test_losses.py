"""Every loss on the tiny UNet, against the network called by hand; their signs are what these tests are for."""

from collections.abc import Callable

import pytest
import torch

from resalign.contracts import Run
from resalign.diffusion.batches import EncodedImages, NoisyBatch
from resalign.diffusion.conditioning import Conditioning
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.diffusion.prediction import predict
from resalign.objectives.denoising import denoising_loss, harmful_loss, per_example_error, prior_preserving_loss
from resalign.objectives.distillation import distillation_loss, reversed_distillation_loss
from resalign.objectives.erasure import erasure_loss
from resalign.tensors.params import Params, add, detached, gradient, norm
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
def original(loaded: LoadedPipeline) -> dict[str, torch.Tensor]:
    return named_weights(loaded.denoiser)


@pytest.fixture(scope="module")
def moved(original: Params) -> dict[str, torch.Tensor]:
    return {name: tensor + 0.02 for name, tensor in original.items()}


def output(
    loaded: LoadedPipeline, weights: Params, batch: NoisyBatch, conditioning: Conditioning | None = None
) -> torch.Tensor:
    hidden = (conditioning or batch.conditioning).encoder_hidden_states
    arguments = (batch.noisy_latents, batch.timesteps, hidden)
    with torch.no_grad():
        prediction: torch.Tensor = torch.func.functional_call(loaded.denoiser, dict(weights), arguments).sample
    return prediction


def errors(loaded: LoadedPipeline, batch: NoisyBatch) -> torch.Tensor:
    """Each example's mean squared error, one example at a time."""
    hidden = batch.conditioning.encoder_hidden_states
    with torch.no_grad():
        outputs = [
            loaded.denoiser(batch.noisy_latents[i, None], batch.timesteps[i], hidden[i, None]).sample
            for i in range(len(batch.timesteps))
        ]
    return torch.stack([(o[0] - t).square().mean() for o, t in zip(outputs, batch.target, strict=True)])


# --- denoising, its prior-preserving form, its negative ---------------------------------------------------------------


def test_denoising_losses_are_means_of_the_networks_own_errors(
    loaded: LoadedPipeline, original: Params, batch: NoisyBatch, prior: NoisyBatch
) -> None:
    each, denoiser = errors(loaded, batch), loaded.denoiser
    assert each.std() > 0
    assert_near(per_example_error(denoiser, original, batch), each, FLOAT32)
    assert_near(denoising_loss(denoiser, original, batch), each.mean(), FLOAT32)
    with_prior = each.mean() + 0.3 * errors(loaded, prior).mean()
    assert_near(prior_preserving_loss(denoiser, original, batch, prior, 0.3), with_prior, FLOAT32)
    harmful = harmful_loss(denoiser, original, batch)
    assert harmful == -denoising_loss(denoiser, original, batch) < 0
    assert harmful_loss(denoiser, original, batch, 1e3) == harmful  # no example has reached the cap


def test_descending_the_harmful_loss_spoils_the_harmful_images(
    loaded: LoadedPipeline, original: Params, batch: NoisyBatch
) -> None:
    weights = detached(original, requires_grad=True)
    slope = gradient(harmful_loss(loaded.denoiser, weights, batch), weights)
    spoiled = add(weights, slope, -0.1 / norm(slope))
    assert denoising_loss(loaded.denoiser, spoiled, batch) > denoising_loss(loaded.denoiser, weights, batch) + 0.01


@pytest.mark.parametrize("below", [0, 3])
def test_truncation_caps_the_loss_and_kills_the_gradient_of_examples_beyond(
    loaded: LoadedPipeline, original: Params, batch: NoisyBatch, below: int
) -> None:
    weights, each = detached(original, requires_grad=True), errors(loaded, batch)
    # The cap lies between two examples, so that no rounding decides.
    cap = (each.sort().values[below - 1 : below + 1].mean() if below else each.min() / 2).item()
    kept = each <= cap
    assert kept.sum() == below
    loss = harmful_loss(loaded.denoiser, weights, batch, cap)
    assert_near(loss, -each.clamp(max=cap).mean(), FLOAT32)
    expected = -per_example_error(loaded.denoiser, weights, batch)[kept].sum() / len(each)
    slope, goal = gradient(loss, weights), gradient(expected, weights)
    assert norm(add(slope, goal, -1.0)) <= 1e-5 * norm(goal)
    assert bool(below) == (norm(slope) > 0)


# --- distillation -----------------------------------------------------------------------------------------------------


def test_distillation_is_the_mean_squared_distance_of_the_predictions(
    loaded: LoadedPipeline, original: Params, moved: Params, batch: NoisyBatch
) -> None:
    expected = (output(loaded, moved, batch) - output(loaded, original, batch)).square().mean()
    assert expected > 0
    assert_near(distillation_loss(loaded.denoiser, moved, original, batch), expected, FLOAT32)
    # The images' noise plays no part.
    other = NoisyBatch(batch.noisy_latents, batch.timesteps, batch.conditioning, torch.zeros_like(batch.target))
    assert distillation_loss(loaded.denoiser, moved, original, other) == distillation_loss(
        loaded.denoiser, moved, original, batch
    )
    # It is zero at the original model.
    weights = detached(original, requires_grad=True)
    loss = distillation_loss(loaded.denoiser, weights, original, batch)
    assert loss.item() == 0
    assert norm(gradient(loss, weights)) == 0


def test_reversed_distillation_pushes_examples_away_up_to_its_truncation(
    loaded: LoadedPipeline, original: Params, moved: Params, batch: NoisyBatch
) -> None:
    def loss(weights: Params, weight: float, truncation: float) -> torch.Tensor:
        return reversed_distillation_loss(
            loaded.denoiser, weights, original, batch, weight=weight, truncation=truncation
        )

    away = distillation_loss(loaded.denoiser, moved, original, batch)
    assert away > 0.01
    assert_near(loss(moved, 0.3, 100.0), denoising_loss(loaded.denoiser, moved, batch) - 0.3 * away, FLOAT32)
    at_original = output(loaded, original, batch)
    distances = (output(loaded, moved, batch) - at_original).square().mean(dim=(1, 2, 3))
    cap = float(distances.sort().values[2:4].mean())
    near, leaves = distances < cap, detached(moved, requires_grad=True)
    assert near.sum() == 3
    pushed = (predict(loaded.denoiser, leaves, batch) - at_original).square().mean(dim=(1, 2, 3))
    expected = denoising_loss(loaded.denoiser, leaves, batch) - 2.0 * pushed[near].sum() / len(near)
    found = gradient(loss(leaves, 2.0, cap), leaves)
    assert norm(add(found, gradient(expected, leaves), -1.0)) < 1e-4 * norm(found)


# --- ESD's target -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def empty(loaded: LoadedPipeline, batch: NoisyBatch) -> Conditioning:
    return loaded.unconditional(len(batch.timesteps))


@pytest.mark.parametrize("eta", [0.0, 1.0, 2.0])
def test_erasure_is_the_distance_to_the_original_steered_away(
    loaded: LoadedPipeline, original: Params, moved: Params, batch: NoisyBatch, empty: Conditioning, eta: float
) -> None:
    conditional, unconditional = output(loaded, original, batch), output(loaded, original, batch, empty)
    assert (conditional - unconditional).abs().max() > 1e-3, "the tiny model ignores its prompts"
    # ε₀(c) − [ε₀(∅) − η(ε₀(c) − ε₀(∅))] = (1 + η)(ε₀(c) − ε₀(∅)); with the sign of η flipped it would be (1 − η).
    at_original = erasure_loss(loaded.denoiser, original, original, batch, empty, eta)
    assert_near(at_original, (1 + eta) ** 2 * (conditional - unconditional).square().mean(), 1e-4)
    target = unconditional - eta * (conditional - unconditional)
    expected = (output(loaded, moved, batch) - target).square().mean()
    assert_near(erasure_loss(loaded.denoiser, moved, original, batch, empty, eta), expected, FLOAT32)


def test_training_on_erasure_steers_away_from_the_prompt(
    loaded: LoadedPipeline, original: Params, batch: NoisyBatch, empty: Conditioning
) -> None:
    weights = detached(original, requires_grad=True)
    slope = gradient(erasure_loss(loaded.denoiser, weights, original, batch, empty, 1.0), weights)
    before, unconditional = output(loaded, original, batch), output(loaded, original, batch, empty)
    now = output(loaded, detached(add(weights, slope, -0.02 / norm(slope))), batch)
    assert ((now - before) * (before - unconditional)).sum() < 0


@pytest.mark.parametrize("name", ["distillation", "reversed", "erasure"])
def test_no_gradient_reaches_the_model_that_is_the_reference(
    loaded: LoadedPipeline, original: Params, moved: Params, batch: NoisyBatch, empty: Conditioning, name: str
) -> None:
    denoiser = loaded.denoiser
    losses: dict[str, Callable[[Params, Params], torch.Tensor]] = {
        "distillation": lambda w, o: distillation_loss(denoiser, w, o, batch),
        "reversed": lambda w, o: reversed_distillation_loss(denoiser, w, o, batch, weight=0.5, truncation=1.0),
        "erasure": lambda w, o: erasure_loss(denoiser, w, o, batch, empty, 1.0),
    }
    weights, reference = detached(moved, requires_grad=True), detached(original, requires_grad=True)
    losses[name](weights, reference).backward()
    assert all(tensor.grad is None for tensor in reference.values())
    assert any(tensor.grad is not None and tensor.grad.abs().max() > 0 for tensor in weights.values())
