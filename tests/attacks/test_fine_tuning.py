"""The loop that attacks share: its schedule, accumulation, optimizers and the step before which nothing is drawn."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from resalign.attacks import full, lora, textual_inversion, worst_case
from resalign.attacks._fine_tuning import FineTuningConfig, learning_rate
from resalign.config.strict import ConfigError, Strict
from resalign.contracts import AttackData, Run
from resalign.data.images import read_captioned_images
from resalign.diffusion.batches import embedded_with, encode
from resalign.diffusion.loaded_pipeline import LoadedPipeline, trainable_tensors
from resalign.diffusion.parametrisation import named_weights
from resalign.library.training import run_attack
from resalign.objectives.denoising import denoising_loss
from resalign.tensors.params import add, detached, gradient, norm, scaled
from resalign.tensors.tracing import Traces
from tests.example_config import smallest
from tests.nearness import differing
from tests.stopping import stopped_after_a_step
from tests.tensors.test_cuda_graphs import on_the_cpu
from tests.weight_names import of_denoiser

from .recorded import attacked


def test_cosine_schedule() -> None:
    config = FineTuningConfig(steps=5, lr=5e-3, schedule="cosine", final_lr=1e-6)
    rates = [learning_rate(config, step) for step in range(1, 6)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(5e-3)
    assert rates[2] == pytest.approx((5e-3 + 1e-6) / 2)
    assert rates[-1] == pytest.approx(1e-6)


@pytest.mark.parametrize("settings", [{}, {"schedule": "cosine", "steps": 1}])
def test_constant_schedule(settings: dict[str, Any]) -> None:
    config = FineTuningConfig(**{"steps": 5, "lr": 2e-3, **settings})
    assert all(learning_rate(config, step) == 2e-3 for step in range(1, config.steps + 1))


def test_a_step_is_along_the_mean_gradient_of_accumulated_batches(
    loaded: LoadedPipeline, attack_data: AttackData
) -> None:
    settings = {"lr": 1e-2, "max_grad_norm": None, "gradient_accumulation": 3}
    found = attacked(full, loaded, attack_data, steps=1, optimizer="sgd", **settings)
    stream, start = Run(0).generator("attack", "full"), detached(named_weights(loaded.denoiser), requires_grad=True)
    losses = [denoising_loss(loaded.denoiser, start, attack_data.train.draw(2, stream)) for _ in range(3)]
    mean = torch.stack(losses).mean()
    expected = scaled(gradient(mean, start), -1e-2)
    assert norm(add(found.moved, expected, -1.0)) < 1e-4 * norm(expected)
    assert found.history("train_loss") == {1: pytest.approx(mean.item(), rel=1e-5)}  # float32


@pytest.mark.parametrize(
    "traces", [None, Traces(after=0), Traces(after=0, capture=on_the_cpu)], ids=["run", "replayed", "captured"]
)
def test_a_step_has_the_bits_of_autograds_own_accumulation(
    loaded: LoadedPipeline, attack_data: AttackData, traces: Traces | None
) -> None:
    settings: dict[str, Any] = {"lr": 1e-2, "max_grad_norm": 0.1, "gradient_accumulation": 2}
    config = smallest(full.Config, steps=3, batch_size=2, **settings)
    attacked_one = replace(loaded, traces=traces) if traces else loaded
    found = attacked(full, attacked_one, attack_data, steps=3, batch_size=2, **settings)
    stream, own = Run(0).generator("attack", "full"), detached(named_weights(loaded.denoiser), requires_grad=True)
    optimizer = torch.optim.AdamW(own.values(), lr=1e-2, weight_decay=config.weight_decay)  # type: ignore[attr-defined]
    for _ in range(3):
        optimizer.zero_grad()
        for _ in range(2):
            (denoising_loss(loaded.denoiser, own, attack_data.train.draw(2, stream)) / 2).backward()
        assert torch.nn.utils.clip_grad_norm_(own.values(), 0.1) > 0.1
        optimizer.step()
    assert all(torch.equal(found.denoiser[name], own[name]) for name in own)


def test_the_released_augmentations_are_of_images_that_are_trained_on(
    loaded: LoadedPipeline, image_folder: Path
) -> None:
    seen: list[AttackData] = []
    images = read_captioned_images(image_folder, pixels=loaded.pixels)
    member: Any = SimpleNamespace(__name__=full.__name__, attack=lambda loaded, data, *rest: seen.append(data))

    def encoded(config: Strict) -> AttackData:
        sets = dict.fromkeys(("train", "heldout", "prior"), images)
        run_attack(loaded, member, config, sets, Run(0), lambda *saved: None)
        return seen[-1]

    released = {"flips": True, "latents_sampled": "anew"}
    searched = worst_case.Config.parse({"candidate": {"attack": "full", **released}}, where="test")
    for data in (encoded(full.Config.parse(released, where="test")), encoded(searched)):
        assert data.prior is not None
        assert (len(data.train), len(data.prior), len(data.heldout)) == (16, 16, 8)
        assert data.train.stds is not None
        assert data.heldout.stds is None
    plain = encoded(full.Config())
    assert torch.equal(plain.train.latents, encode(loaded, images, Run(0).generator("encode", "train")).latents)
    assert plain.train.stds is None


@pytest.mark.parametrize("optimizer", ["adam_8bit", "adamw_8bit"])
def test_an_optimizer_that_is_not_installed_is_named(
    loaded: LoadedPipeline, attack_data: AttackData, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=f"optimizer '{optimizer}' needs bitsandbytes .* or take 'adam' or 'adamw'"):
        attacked(full, loaded, attack_data, optimizer=optimizer)


@pytest.mark.parametrize("optimizer", ["adam_8bit", "adamw_8bit"])
def test_eight_bits_are_close_to_all(
    loaded: LoadedPipeline, attack_data: AttackData, optimizer: str, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    settings: dict[str, Any] = {"steps": 4, "lr": 1e-3, "max_grad_norm": None, "weight_decay": 0.5}
    whole = attacked(full, loaded, attack_data, optimizer=optimizer.removesuffix("_8bit"), **settings)
    rough = attacked(full, loaded, attack_data, optimizer=optimizer, **settings)
    assert 0 < norm(add(rough.weights, whole.weights, -1.0)) < 0.2 * norm(whole.moved)
    resumed = stopped_after_a_step(
        tmp_path, lambda attempt: attacked(full, loaded, attack_data, attempt=attempt, optimizer=optimizer, **settings)
    )
    assert not differing(resumed.weights, rough.weights)


MODULAR: dict[str, Any] = {"steps": 2, "checkpoints": [1], "lr": 1e-2, "max_grad_norm": None}


@pytest.fixture(scope="module")
def unlearned(loaded: LoadedPipeline) -> dict[str, torch.Tensor]:
    """A change to some weights of the denoiser and of the text encoder."""
    own, stream = trainable_tensors(loaded.pipeline), torch.Generator().manual_seed(3)
    names = [name for name in own if name.startswith("text_encoder.") or name.endswith("to_q.weight")]
    return {name: own[name] + 0.02 * torch.randn(own[name].shape, generator=stream) for name in names}


@pytest.mark.parametrize("module", [full, lora, textual_inversion])
def test_unlearning_is_added_to_what_the_user_made_of_the_base(
    loaded: LoadedPipeline, attack_data: AttackData, module: Any, unlearned: dict[str, torch.Tensor]
) -> None:
    own = trainable_tensors(loaded.pipeline)
    users = attacked(module, loaded, attack_data, **MODULAR)
    both = attacked(module, loaded, replace(attack_data, unlearned=unlearned), **MODULAR)
    assert both.history("train_loss") == users.history("train_loss")  # the user sees nothing of unlearning
    for step in (1, 2):
        assert both.saved[step].keys() == users.saved[step].keys() | unlearned.keys()
        for name, tensor in both.saved[step].items():
            theta = own[name].double()
            safety = unlearned.get(name, own[name]).double() - theta
            assert torch.equal(tensor, (theta + safety + (users.saved[step].get(name, theta) - theta)).float())


def test_held_out_losses_are_those_of_the_sum(
    loaded: LoadedPipeline, attack_data: AttackData, unlearned: dict[str, torch.Tensor]
) -> None:
    both = attacked(full, loaded, replace(attack_data, unlearned=unlearned), **MODULAR)
    count = smallest(full.Config, **MODULAR).heldout_batch_size
    batch = attack_data.heldout.draw_stratified(count, Run(0).generator("attack", "heldout"))
    for step, weights in {0: unlearned, **both.saved}.items():
        text = {name: tensor for name, tensor in weights.items() if name.startswith("text_encoder.")}
        unet = {name: tensor for name, tensor in weights.items() if name not in text}
        with torch.no_grad():
            embedded = embedded_with(loaded, text, batch)
            loss = denoising_loss(loaded.denoiser, of_denoiser(loaded, unet), embedded).item()
        assert both.history("heldout_loss")[step] == pytest.approx(loss, rel=1e-5)  # float32


def test_the_sum_with_one_change_is_that_model(
    loaded: LoadedPipeline, attack_data: AttackData, unlearned: dict[str, torch.Tensor]
) -> None:
    untouched = attacked(full, loaded, replace(attack_data, unlearned=unlearned), steps=0, checkpoints=[])
    assert not differing({**trainable_tensors(loaded.pipeline), **unlearned}, untouched.weights)
    nothing = {name: trainable_tensors(loaded.pipeline)[name] for name in unlearned}
    users, both = (
        attacked(full, loaded, data, **MODULAR) for data in (attack_data, replace(attack_data, unlearned=nothing))
    )
    assert not differing({**nothing, **users.weights}, both.weights)
