"""Which weights Custom Diffusion trains, and that it trains them as full fine-tuning would."""

import importlib
from dataclasses import replace
from typing import Any

import pytest
import torch

from resalign.attacks import custom_diffusion, full, textual_inversion
from resalign.config.strict import ConfigError
from resalign.contracts import AttackData, Run, check_architecture
from resalign.data.images import DataError
from resalign.diffusion.models import Models, trainable_tensors
from resalign.diffusion.parametrisation import named_weights
from resalign.tensors.named import Named, add, norm
from tests.nearness import differing
from tests.weight_names import of_denoiser


def kept(module: Any, models: Models, data: AttackData, **settings: Any) -> dict[str, torch.Tensor]:
    saved: dict[str, torch.Tensor] = {}

    def save(_step: int, weights: Named, _lora: object = None, /) -> None:
        saved.update(weights)

    config = module.Config.parse({"lr": 1e-2, "optimizer": "sgd", "max_grad_norm": None, **settings}, where="test")
    module.attack(models, data, config, Run(0), save)
    return saved


def attacked(module: Any, models: Models, data: AttackData, **settings: Any) -> dict[str, torch.Tensor]:
    return of_denoiser(models, kept(module, models, data, **settings))


def test_keys_and_values_of_cross_attention_alone_are_trained(models: Models, attack_data: AttackData) -> None:
    saved, original = attacked(custom_diffusion, models, attack_data, steps=2), named_weights(models.denoiser)
    blocks = {name.split(".attn2.")[0] for name in original if ".attn2." in name}
    assert saved.keys() == {f"{block}.attn2.{part}.weight" for block in blocks for part in ("to_k", "to_v")}
    assert not [name for name, tensor in saved.items() if torch.equal(tensor, original[name])]


def test_zero_steps_are_the_model_itself(models: Models, attack_data: AttackData) -> None:
    saved, original = attacked(custom_diffusion, models, attack_data, steps=0), trainable_tensors(models.pipeline)
    assert saved
    assert not differing(original, {f"unet.{name}": tensor for name, tensor in saved.items()})


def test_one_step_is_full_fine_tunings_in_these_weights(models: Models, attack_data: AttackData) -> None:
    saved = attacked(custom_diffusion, models, attack_data, steps=1, prior_weight=0.0)
    whole, original = attacked(full, models, attack_data, steps=1), named_weights(models.denoiser)
    part = {name: whole[name] for name in saved}
    moved = add(part, original, -1.0)
    assert norm(add(saved, part, -1.0)) < 1e-5 * norm(moved)


def test_the_prior_counts(models: Models, attack_data: AttackData) -> None:
    without, beside = (
        attacked(custom_diffusion, models, attack_data, steps=1, prior_weight=weight) for weight in (0.0, 1.0)
    )
    assert all(not torch.equal(without[name], beside[name]) for name in without)


def test_with_a_token_both_parts_step_as_each_does_alone(models: Models, attack_data: AttackData) -> None:
    settings = {"steps": 1, "lr": 0.5}
    both = kept(custom_diffusion, models, attack_data, token="two", prior_weight=0.0, **settings)
    projections = kept(custom_diffusion, models, attack_data, prior_weight=0.0, **settings)
    table = kept(textual_inversion, models, attack_data, token="two", **settings)
    assert both.keys() == projections.keys() | table.keys()
    original = trainable_tensors(models.pipeline)
    for alone in (projections, table):
        moved = add(alone, original, -1.0)
        assert norm(moved) > 0
        assert norm(add(alone, both, -1.0)) <= 1e-5 * norm(moved)


def test_prior_captions_do_not_have_the_token(models: Models, attack_data: AttackData) -> None:
    assert attack_data.prior is not None
    data = replace(attack_data, prior=replace(attack_data.prior, prompts=("a red two",) * len(attack_data.prior)))
    with pytest.raises(DataError, match="prior: a caption has the token 'two'"):
        kept(custom_diffusion, models, data, token="two", steps=1)
    assert kept(custom_diffusion, models, data, token="two", steps=1, prior_weight=0.0)


def test_a_model_without_cross_attention_is_refused() -> None:
    member = importlib.import_module("resalign.attacks.custom_diffusion")
    with pytest.raises(ConfigError, match=r"attacks 'custom_diffusion' supports .* model is stable_diffusion_3"):
        check_architecture(member, "stable_diffusion_3")
