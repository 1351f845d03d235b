"""DreamBooth's limit, its loss by hand, and what it needs."""

from typing import Any

import pytest
import torch

from resalign.attacks import dreambooth, full
from resalign.config.strict import ConfigError
from resalign.contracts import AttackData, Run
from resalign.diffusion.models import Models
from resalign.diffusion.parametrisation import named_weights
from resalign.objectives.denoising import denoising_loss
from resalign.tensors.named import Named, add, detached, gradient, norm
from tests.nearness import differing
from tests.weight_names import of_denoiser


def attacked(module: Any, models: Models, data: AttackData, **settings: Any) -> tuple[dict[str, torch.Tensor], Run]:
    run, saved = Run(0), {}

    def save(_step: int, weights: Named, _lora: object = None, /) -> None:
        saved.update(of_denoiser(models, weights))

    config = module.Config.parse({"steps": 3, "lr": 1e-2, "batch_size": 2, **settings}, where="test")
    module.attack(models, data, config, run, save)
    return saved, run


@pytest.mark.parametrize("has_prior", [True, False])
def test_without_weight_it_is_full_fine_tuning_to_the_bit(
    models: Models, attack_data: AttackData, has_prior: bool
) -> None:
    data = attack_data if has_prior else AttackData(attack_data.train, attack_data.heldout)
    limit, told = attacked(dreambooth, models, data, prior_weight=0.0)
    plain, expected = attacked(full, models, data)
    assert limit.keys() == plain.keys()
    assert not differing(limit, plain)
    assert told.history.rows == expected.history.rows


def test_gradient_descent_on_both_losses(models: Models, attack_data: AttackData) -> None:
    saved, _ = attacked(dreambooth, models, attack_data, prior_weight=0.3, optimizer="sgd", max_grad_norm=None)
    assert attack_data.prior is not None
    own, others = (Run(0).generator("attack", purpose) for purpose in ("full", "prior"))
    weights = named_weights(models.denoiser)
    for _ in range(3):
        leaves = detached(weights, requires_grad=True)
        loss = denoising_loss(models.denoiser, leaves, attack_data.train.draw(2, own))
        loss = loss + 0.3 * denoising_loss(models.denoiser, leaves, attack_data.prior.draw(2, others))
        weights = add(weights, gradient(loss, leaves), -1e-2)
    assert norm(add(saved, weights, -1.0)) < 1e-4 * norm(add(saved, named_weights(models.denoiser), -1.0))


def test_a_prior_that_is_needed_must_be_there(models: Models, attack_data: AttackData) -> None:
    with pytest.raises(ConfigError, match="give 'prior', or prior_weight: 0"):
        attacked(dreambooth, models, AttackData(attack_data.train, attack_data.heldout))
