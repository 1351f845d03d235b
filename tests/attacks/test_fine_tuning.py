"""The loop that attacks share: its schedule, accumulation, optimizers and the step before which nothing is drawn."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from resalign.attacks import full
from resalign.attacks._fine_tuning import FineTuningConfig, learning_rate
from resalign.config.strict import ConfigError
from resalign.contracts import AttackData, Run
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.objectives.denoising import denoising_loss
from resalign.tensors.params import add, detached, gradient, norm, scaled
from tests.nearness import differing
from tests.stopping import stopped_after_a_step

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
