"""The attacker's step against ResAlign's hypergradient by hand, and its sign by what a fine-tuning brings back."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from resalign.attacks import hypergradient_relearning
from resalign.bilevel.adaptation import adapt
from resalign.bilevel.unrolled import unrolled_hypergradient
from resalign.config.strict import ConfigError
from resalign.contracts import AttackData, Run
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.objectives.denoising import denoising_loss
from resalign.objectives.simulated_hypergradient import simulated_hypergradient
from resalign.objectives.simulation import Simulation
from resalign.tensors.params import Params, add, norm, scaled
from tests.example_config import smallest

from .recorded import Recorded, attacked

SIMULATION = {"lr": [1e-2], "steps": [2], "adaptation": ["full"], "optimizer": ["sgd"], "batch_size": 2}
SETTINGS = {"lr": 1e-2, "optimizer": "sgd", "max_grad_norm": None, "gamma": 0.02, "simulation": SIMULATION}


def relearned(loaded: LoadedPipeline, data: AttackData, **settings: Any) -> Recorded:
    return attacked(hypergradient_relearning, loaded, data, **{"steps": 1, **SETTINGS, **settings})


def test_a_step_descends_along_the_hypergradient_of_the_harmful_denoising_loss(
    loaded: LoadedPipeline, attack_data: AttackData
) -> None:
    assert attack_data.harmful is not None
    found = relearned(loaded, attack_data)
    config = smallest(hypergradient_relearning.Config, **SETTINGS)
    theta, (batches, stream) = (
        named_weights(loaded.denoiser),
        (Run(0).generator("attack", purpose) for purpose in ("full", "simulation")),
    )
    harmful = attack_data.harmful.draw(2, batches)
    outer_loss = partial(denoising_loss, loaded.denoiser, batch=harmful)
    simulated = Simulation(loaded, attack_data.train, attack_data.train, config.simulation, stream, stream)
    hypergradient, logged = simulated_hypergradient(config, simulated, theta, outer_loss, where="test")
    assert norm(add(found.moved, scaled(hypergradient, -1e-2), -1.0)) < 1e-4 * norm(found.moved)
    assert found.history("train_loss")[1] == pytest.approx(outer_loss(theta).item(), rel=1e-5)  # float32
    assert found.history("relative_residual")[1] == logged["relative_residual"]


def test_benign_fine_tuning_afterwards_lowers_the_harmful_error(
    loaded: LoadedPipeline, attack_data: AttackData
) -> None:
    # A wrong sign, or harmful and benign images exchanged, would raise it or leave it.
    assert attack_data.harmful is not None
    saved = relearned(loaded, attack_data, steps=4, lr=2e-2, batch_size=4).denoiser
    harmful = attack_data.harmful.draw_stratified(16, Run(5).generator("test"))
    benign = attack_data.train.draw_stratified(8, Run(6).generator("test"))

    def error_after_fine_tuning(weights: Params) -> float:
        loss = partial(denoising_loss, loaded.denoiser, batch=benign)
        tuned, _ = adapt(lambda _: loss, weights, lr=1e-2, steps=2, optimizer="sgd")
        with torch.no_grad():
            return denoising_loss(loaded.denoiser, tuned, harmful).item()

    assert error_after_fine_tuning(saved) < 0.98 * error_after_fine_tuning(named_weights(loaded.denoiser))


def test_the_direction_is_that_of_differentiating_through_the_fine_tuning(
    loaded: LoadedPipeline, attack_data: AttackData
) -> None:
    assert attack_data.harmful is not None
    theta, step = named_weights(loaded.denoiser), relearned(loaded, attack_data).moved
    harmful = attack_data.harmful.draw(2, Run(0).generator("attack", "full"))
    benign = attack_data.train.draw_stratified(8, Run(6).generator("test"))
    outer, inner = (partial(denoising_loss, loaded.denoiser, batch=batch) for batch in (harmful, benign))
    _, exact = unrolled_hypergradient(outer, inner, theta, lr=1e-2, steps=2)
    cosine = sum(float((step[n] * exact[n]).sum()) for n in step) / (norm(step) * norm(exact))
    assert cosine < -0.98


def test_each_step_records_its_own_draw(loaded: LoadedPipeline, attack_data: AttackData) -> None:
    # At a rate that moves no weight there is no γ that matches; the draw before it had one.
    simulation = {**SIMULATION, "lr": [1e-2, 1e-60]}
    found = relearned(loaded, attack_data, steps=6, solver="identity", simulation=simulation)
    rates = found.history("inner_lr")
    moved = [step for step, rate in rates.items() if rate == 1e-2]
    assert 0 < len(moved) < max(moved)  # one that moved nothing came before the last that did
    assert len(rates) == 6
    assert list(found.history("matched_gamma")) == moved


@pytest.mark.parametrize("key", ["harmful", "prior"])
def test_images_that_are_needed_must_be_there(loaded: LoadedPipeline, attack_data: AttackData, key: str) -> None:
    lacking = replace(attack_data, **{key: None})
    with pytest.raises(ConfigError, match=f"no {key} images; give '{key}'"):
        relearned(loaded, lacking, simulation={**SIMULATION, "loss": ["prior_preserving"]})
