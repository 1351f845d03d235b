"""The reversed distillation term by hand, and its truncation."""

import pytest
import torch

from resalign.contracts import AttackData, Run
from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.models import Models
from resalign.diffusion.parametrisation import named_weights
from resalign.diffusion.prediction import predict
from resalign.objectives.denoising import denoising_loss, per_example_error
from resalign.objectives.distillation import distillation_loss, reversed_distillation_loss
from resalign.tensors.named import Named, add, detached, gradient, norm
from tests.nearness import assert_near


@pytest.fixture(scope="module")
def batch(attack_data: AttackData) -> NoisyBatch:
    return attack_data.train.draw_stratified(4, Run(0).generator("test"))


@pytest.fixture(scope="module")
def moved(models: Models) -> dict[str, torch.Tensor]:
    return {name: tensor + 0.02 for name, tensor in named_weights(models.denoiser).items()}


def test_denoising_minus_the_distance(models: Models, batch: NoisyBatch, moved: Named) -> None:
    unlearned = named_weights(models.denoiser)
    loss = reversed_distillation_loss(models.denoiser, moved, unlearned, batch, weight=0.3, truncation=100.0)
    away = distillation_loss(models.denoiser, moved, unlearned, batch)
    assert away > 0.01
    assert_near(loss, denoising_loss(models.denoiser, moved, batch) - 0.3 * away, 1e-5)


def test_an_example_that_has_moved_far_enough_is_pushed_no_further(
    models: Models, batch: NoisyBatch, moved: Named
) -> None:
    unlearned, leaves = named_weights(models.denoiser), detached(moved, requires_grad=True)
    with torch.no_grad():
        distances = (predict(models.denoiser, moved, batch) - predict(models.denoiser, unlearned, batch)).square()
    cap = float(distances.mean(dim=(1, 2, 3)).median())  # of some examples
    loss = reversed_distillation_loss(models.denoiser, leaves, unlearned, batch, weight=2.0, truncation=cap)
    near = distances.mean(dim=(1, 2, 3)) < cap
    assert 0 < near.sum() < len(near)
    errors = per_example_error(models.denoiser, leaves, batch)
    pushed = (predict(models.denoiser, leaves, batch) - predict(models.denoiser, unlearned, batch)).square()
    expected = errors.mean() - 2.0 * pushed.mean(dim=(1, 2, 3))[near].sum() / len(near)
    found = gradient(loss, leaves)
    assert norm(add(found, gradient(expected, leaves), -1.0)) < 1e-4 * norm(found)
