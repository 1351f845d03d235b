"""Full-parameter fine-tuning against PyTorch's own optimizers."""

from typing import Any

import pytest
import torch

from resalign.attacks import full
from resalign.contracts import AttackData, Run
from resalign.diffusion.models import Models
from resalign.diffusion.parametrisation import named_weights
from resalign.objectives.denoising import denoising_loss
from resalign.tensors.named import add, detached, gradient, norm
from resalign.tensors.steps import DivergenceError
from tests.nearness import differing
from tests.weight_names import of_denoiser


def attacked(models: Models, data: AttackData, **settings: Any) -> tuple[dict[str, torch.Tensor], Run]:
    run, saved = Run(0), {}
    config = full.Config.parse({"steps": 3, "lr": 1e-2, **settings}, where="test")
    full.attack(models, data, config, run, lambda step, weights, lora: saved.update(of_denoiser(models, weights)))
    return saved, run


def test_gradient_descent_on_the_denoising_loss(models: Models, attack_data: AttackData) -> None:
    saved, _ = attacked(models, attack_data, optimizer="sgd", max_grad_norm=None, batch_size=2)
    stream, weights = Run(0).generator("attack", "full"), named_weights(models.denoiser)
    for _ in range(3):
        leaves = detached(weights, requires_grad=True)
        weights = add(
            weights, gradient(denoising_loss(models.denoiser, leaves, attack_data.train.draw(2, stream)), leaves), -1e-2
        )
    assert norm(add(saved, weights, -1.0)) < 1e-4 * norm(add(saved, named_weights(models.denoiser), -1.0))


def test_every_weight_is_trained(models: Models, attack_data: AttackData) -> None:
    saved, _ = attacked(models, attack_data)
    original = named_weights(models.denoiser)
    assert saved.keys() == original.keys()
    still = [name for name in saved if torch.equal(saved[name], original[name])]
    assert not still


def test_fine_tuning_learns_what_it_is_trained_on(models: Models, attack_data: AttackData) -> None:
    _, run = attacked(models, AttackData(attack_data.train, attack_data.train), steps=30, lr=3e-3, batch_size=4)
    losses = {step: value for step, name, value in run.history.rows if name == "heldout_loss"}
    assert losses[30] < 0.9 * losses[0]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_optimizers_differ(models: Models, attack_data: AttackData, optimizer: str) -> None:
    # Adam's first step has the learning rate's length in every coordinate, AdamW's also decays the weights.
    saved, _ = attacked(models, attack_data, steps=1, optimizer=optimizer, max_grad_norm=None, weight_decay=0.5)
    original = named_weights(models.denoiser)
    name = "conv_in.weight"
    change = saved[name] - original[name] * (1 - 1e-2 * 0.5 if optimizer == "adamw" else 1)
    lengths = change.abs().flatten()
    assert (optimizer == "sgd") == bool(lengths.std() > 1e-4)
    if optimizer != "sgd":
        assert lengths.median().item() == pytest.approx(1e-2, rel=1e-2)


def test_clipping_bounds_the_step(models: Models, attack_data: AttackData) -> None:
    saved, _ = attacked(models, attack_data, steps=1, optimizer="sgd", max_grad_norm=0.01)
    assert norm(add(saved, named_weights(models.denoiser), -1.0)) == pytest.approx(1e-2 * 0.01, rel=1e-2)


def test_the_schedule_is_obeyed(models: Models, attack_data: AttackData) -> None:
    settings = {"optimizer": "sgd", "max_grad_norm": None, "steps": 2}
    constant, _ = attacked(models, attack_data, **settings)
    cosine, _ = attacked(models, attack_data, **settings, schedule="cosine", final_lr=0.0)
    one, _ = attacked(models, attack_data, **{**settings, "steps": 1})
    assert not differing(cosine, one)  # the last learning rate is 0
    assert any(not torch.equal(cosine[n], constant[n]) for n in one)


def test_divergence_raises(models: Models, attack_data: AttackData) -> None:
    with pytest.raises(DivergenceError, match=r"attack 'full' at step \d+ .*diverged: gradient norm"):
        attacked(models, attack_data, optimizer="sgd", lr=1e25, max_grad_norm=None, steps=10)


def test_published_defaults() -> None:
    defaults = full.Config()
    assert (defaults.steps, defaults.batch_size, defaults.lr) == (200, 1, 1e-5)
