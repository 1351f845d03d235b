"""Limits in which one attack is another, and single steps against gradients taken by hand."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch

from resalign.attacks import custom_diffusion, distillation_reversed, dreambooth, full, interpolation, textual_inversion
from resalign.config.strict import ConfigError
from resalign.contracts import AttackData, Run
from resalign.data.images import DataError
from resalign.diffusion.loaded_pipeline import LoadedPipeline, trainable_tensors
from resalign.diffusion.parametrisation import named_weights
from resalign.objectives.denoising import denoising_loss
from resalign.objectives.distillation import distillation_loss
from resalign.tensors.params import Params, add, detached, gradient, norm
from resalign.tensors.steps import DivergenceError
from tests.nearness import assert_near, differing

from .recorded import attacked

LR = 1e-2
PLAIN: dict[str, Any] = {"lr": LR, "optimizer": "sgd", "max_grad_norm": None}


@pytest.mark.parametrize(
    ("module", "settings", "has_prior"),
    [
        (dreambooth, {"prior_weight": 0.0}, True),
        (dreambooth, {"prior_weight": 0.0}, False),
        (distillation_reversed, {"weight": 0.0}, True),
    ],
)
def test_at_weight_0_an_attack_is_full_fine_tuning_to_the_bit(
    loaded: LoadedPipeline, attack_data: AttackData, module: ModuleType, settings: dict[str, Any], has_prior: bool
) -> None:
    data = attack_data if has_prior else AttackData(attack_data.train, attack_data.heldout)
    limit, plain = attacked(module, loaded, data, lr=LR, **settings), attacked(full, loaded, data, lr=LR)
    assert limit.weights.keys() == plain.weights.keys()
    assert not differing(limit.weights, plain.weights)
    assert limit.run.history.rows == plain.run.history.rows


@pytest.mark.parametrize(
    ("module", "settings"),
    [(full, {}), (dreambooth, {"prior_weight": 0.3}), (distillation_reversed, {"weight": 0.7, "truncation": 100.0})],
)
def test_gradient_descent_on_the_attacks_loss(
    loaded: LoadedPipeline, attack_data: AttackData, module: ModuleType, settings: dict[str, Any]
) -> None:
    found = attacked(module, loaded, attack_data, steps=3, **PLAIN, **settings)
    assert attack_data.prior is not None
    own, others = (Run(0).generator("attack", purpose) for purpose in ("full", "prior"))
    unlearned = named_weights(loaded.denoiser)
    weights: Params = unlearned
    for _ in range(3):
        leaves, batch = detached(weights, requires_grad=True), attack_data.train.draw(2, own)
        loss = denoising_loss(loaded.denoiser, leaves, batch)
        if module is dreambooth:
            loss = loss + 0.3 * denoising_loss(loaded.denoiser, leaves, attack_data.prior.draw(2, others))
        if module is distillation_reversed:
            loss = loss - 0.7 * distillation_loss(loaded.denoiser, leaves, unlearned, batch)
        weights = add(weights, gradient(loss, leaves), -LR)
    assert norm(add(found.denoiser, weights, -1.0)) < 1e-4 * norm(found.moved)


# --- full fine-tuning -------------------------------------------------------------------------------------------------


def test_every_weight_is_trained(loaded: LoadedPipeline, attack_data: AttackData) -> None:
    original, saved = named_weights(loaded.denoiser), attacked(full, loaded, attack_data, lr=LR).denoiser
    assert saved.keys() == original.keys()
    assert not [name for name in saved if torch.equal(saved[name], original[name])]


def test_fine_tuning_learns_what_it_is_trained_on(loaded: LoadedPipeline, attack_data: AttackData) -> None:
    data = AttackData(attack_data.train, attack_data.train)
    losses = attacked(full, loaded, data, steps=30, lr=3e-3, batch_size=4, heldout_batch_size=64)
    assert losses.history("heldout_loss")[30] < 0.9 * losses.history("heldout_loss")[0]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_optimizers_differ(loaded: LoadedPipeline, attack_data: AttackData, optimizer: str) -> None:
    # Adam's first step has the learning rate's length in every coordinate, AdamW's also decays the weights.
    settings = {**PLAIN, "optimizer": optimizer, "weight_decay": 0.5}
    saved = attacked(full, loaded, attack_data, steps=1, **settings).denoiser["conv_in.weight"]
    original = named_weights(loaded.denoiser)["conv_in.weight"]
    lengths = (saved - original * (1 - LR * 0.5 if optimizer == "adamw" else 1)).abs().flatten()
    assert (optimizer == "sgd") == bool(lengths.std() > 1e-4)
    if optimizer != "sgd":
        assert lengths.median().item() == pytest.approx(LR, rel=1e-2)


def test_clipping_bounds_the_step(loaded: LoadedPipeline, attack_data: AttackData) -> None:
    found = attacked(full, loaded, attack_data, steps=1, **{**PLAIN, "max_grad_norm": 0.01})
    assert norm(found.moved) == pytest.approx(LR * 0.01, rel=1e-2)


def test_the_schedule_is_obeyed(loaded: LoadedPipeline, attack_data: AttackData) -> None:
    constant = attacked(full, loaded, attack_data, **PLAIN).weights
    cosine = attacked(full, loaded, attack_data, **PLAIN, schedule="cosine", final_lr=0.0).weights
    one = attacked(full, loaded, attack_data, **PLAIN, steps=1).weights
    assert not differing(cosine, one)  # the last learning rate is 0
    assert differing(cosine, constant)


def test_divergence_raises(loaded: LoadedPipeline, attack_data: AttackData) -> None:
    with pytest.raises(DivergenceError, match=r"attack 'full' at step \d+ .*diverged: gradient norm"):
        attacked(full, loaded, attack_data, **{**PLAIN, "lr": 1e25}, steps=10)


# --- DreamBooth, Custom Diffusion, interpolation ----------------------------------------------------------------------


def test_a_prior_that_is_needed_must_be_there(loaded: LoadedPipeline, attack_data: AttackData) -> None:
    with pytest.raises(ConfigError, match="give 'prior', or prior_weight: 0"):
        attacked(dreambooth, loaded, AttackData(attack_data.train, attack_data.heldout))


def custom(loaded: LoadedPipeline, data: AttackData, **settings: Any) -> dict[str, torch.Tensor]:
    return attacked(custom_diffusion, loaded, data, **{**PLAIN, "steps": 1, "token": None, **settings}).weights


def test_custom_diffusion_trains_keys_and_values_of_cross_attention(
    loaded: LoadedPipeline, attack_data: AttackData
) -> None:
    saved, original = custom(loaded, attack_data, steps=2), trainable_tensors(loaded.pipeline)
    blocks = {name.split(".attn2.")[0] for name in original if ".attn2." in name}
    assert saved.keys() == {f"{block}.attn2.{part}.weight" for block in blocks for part in ("to_k", "to_v")}
    assert not [name for name, tensor in saved.items() if torch.equal(tensor, original[name])]


def test_custom_diffusions_step_is_full_fine_tunings_in_its_weights(
    loaded: LoadedPipeline, attack_data: AttackData
) -> None:
    saved = custom(loaded, attack_data, prior_weight=0.0)
    whole, original = attacked(full, loaded, attack_data, **PLAIN, steps=1).weights, trainable_tensors(loaded.pipeline)
    part = {name: whole[name] for name in saved}
    assert norm(add(saved, part, -1.0)) < 1e-5 * norm(add(part, original, -1.0))
    beside = custom(loaded, attack_data, prior_weight=1.0)
    assert all(not torch.equal(saved[name], beside[name]) for name in saved)


def test_with_a_token_both_parts_step_as_each_does_alone(loaded: LoadedPipeline, attack_data: AttackData) -> None:
    settings = {"steps": 1, "lr": 0.5}
    both = custom(loaded, attack_data, token="two", prior_weight=0.0, **settings)
    projections = custom(loaded, attack_data, prior_weight=0.0, **settings)
    table = attacked(textual_inversion, loaded, attack_data, **{**PLAIN, **settings}).weights
    assert both.keys() == projections.keys() | table.keys()
    original = trainable_tensors(loaded.pipeline)
    for alone in (projections, table):
        moved = add(alone, original, -1.0)
        assert norm(moved) > 0
        assert norm(add(alone, both, -1.0)) <= 1e-5 * norm(moved)


def test_prior_captions_do_not_have_the_token(loaded: LoadedPipeline, attack_data: AttackData) -> None:
    assert attack_data.prior is not None
    data = replace(attack_data, prior=replace(attack_data.prior, prompts=("a red two",) * len(attack_data.prior)))
    with pytest.raises(DataError, match="prior: a caption has the token 'two'"):
        custom(loaded, data, token="two")
    assert custom(loaded, data, token="two", prior_weight=0.0)


@pytest.mark.parametrize("amount", [0.0, 0.25, 1.0])
def test_an_interpolation_begins_on_the_line_between_the_models(amount: float) -> None:
    stream = torch.Generator().manual_seed(0)
    original, unlearned = ({"unet.w": torch.randn(50, generator=stream)} for _ in range(2))
    found = interpolation.start(interpolation.Config(amount=amount), unlearned, original)["unet.w"]
    assert_near(found, (1 - amount) * unlearned["unet.w"] + amount * original["unet.w"], 1e-6)
    if amount in (0.0, 1.0):  # to the bit
        assert torch.equal(found, (original if amount else unlearned)["unet.w"])
