"""What every fine-tuning attack must do. A new file in ``src/resalign/attacks`` is held to it unasked."""

import inspect
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from resalign.config import registry
from resalign.config.strict import ConfigError
from resalign.contracts import AttackData, Run
from resalign.diffusion.loaded_pipeline import LoadedPipeline, trainable_tensors
from resalign.running.attempt import Attempt
from tests.example_config import smallest
from tests.nearness import differing
from tests.pipelines import check_declared, on_every_pipeline, on_one_pipeline
from tests.stopping import stopped_after_a_step

from .recorded import Recorded, attacked

ATTACKS = registry.members("attacks")
STEPS, CHECKPOINTS = 3, [1, 2]


def attack(name: str, loaded: LoadedPipeline, data: AttackData, seed: int = 0, **settings: Any) -> Recorded:
    """An attack of a few steps, at its defaults otherwise."""
    few = {"steps": STEPS, "checkpoints": CHECKPOINTS}
    attempt = settings.pop("attempt", None) or Attempt()
    return attacked(registry.member("attacks", name), loaded, data, Run(seed, attempt=attempt), **{**few, **settings})


def equal(first: Recorded, step: int, second: Recorded, other_step: int | None = None) -> bool:
    """Whether both saved the same weights and prompts, at one step or at two."""
    other_step = step if other_step is None else other_step
    assert first.saved[step].keys() == second.saved[other_step].keys()
    same_prompts = first.prompts[step] == second.prompts[other_step]
    return same_prompts and not differing(first.saved[step], second.saved[other_step])


@pytest.fixture(scope="module", params=ATTACKS)
def name(request: pytest.FixtureRequest, pipeline_kind: str) -> str:
    check_declared("attacks", request.param, pipeline_kind)
    return str(request.param)


@pytest.fixture(scope="module")
def before(loaded: LoadedPipeline) -> dict[str, torch.Tensor]:
    return {n: t.clone() for n, t in trainable_tensors(loaded.pipeline).items()}


@pytest.fixture(scope="module")
def result(name: str, loaded: LoadedPipeline, attack_data: AttackData, before: dict[str, torch.Tensor]) -> Recorded:
    return attack(name, loaded, attack_data)


@pytest.fixture(scope="module")
def of_no_steps(name: str, loaded: LoadedPipeline, attack_data: AttackData) -> Recorded:
    return attack(name, loaded, attack_data, steps=0, checkpoints=[])


@pytest.mark.parametrize("name", ATTACKS)
def test_signature(name: str) -> None:
    parameters = inspect.signature(registry.member("attacks", name).attack).parameters
    assert list(parameters) == ["loaded", "data", "config", "run", "save"]


@on_every_pipeline
def test_weights_are_kept_at_every_checkpoint_and_at_the_end(loaded: LoadedPipeline, result: Recorded) -> None:
    assert list(result.saved) == [*CHECKPOINTS, STEPS]
    expected = trainable_tensors(loaded.pipeline)
    for step, weights in result.saved.items():
        assert weights or result.prompts[step]
        for n, tensor in weights.items():
            assert tensor.shape == expected[n].shape
            assert not tensor.requires_grad
            assert torch.isfinite(tensor).all()


@on_every_pipeline
def test_kept_weights_are_those_of_their_step(result: Recorded) -> None:
    # An attack that kept references to the weights that it trains on would keep the last step's three times.
    # Prompts may be no better a step later.
    steps = [CHECKPOINTS[0], STEPS] if result.prompts[STEPS] else [*CHECKPOINTS, STEPS]
    for earlier, later in itertools.pairwise(steps):
        assert not equal(result, earlier, result, later)


@on_one_pipeline
def test_heldout_loss_is_recorded_on_the_same_examples_for_every_seed(
    name: str, loaded: LoadedPipeline, attack_data: AttackData, of_no_steps: Recorded, result: Recorded
) -> None:
    of_another_seed = attack(name, loaded, attack_data, seed=1)
    found, other = result.history("heldout_loss"), of_another_seed.history("heldout_loss")
    assert sorted(found) == [0, *CHECKPOINTS, STEPS]
    assert of_no_steps.history("heldout_loss") == {0: found[0]}  # the first is the untouched model's
    assert other[0] == found[0]
    assert other[STEPS] != found[STEPS]
    assert not equal(of_another_seed, STEPS, result)


@on_every_pipeline
def test_zero_steps_change_nothing(loaded: LoadedPipeline, attack_data: AttackData, of_no_steps: Recorded) -> None:
    [(step, weights)] = of_no_steps.saved.items()
    original = trainable_tensors(loaded.pipeline)
    assert step == 0
    assert of_no_steps.prompts[0] in ((), attack_data.prompts)
    assert not differing(original, weights)


@on_every_pipeline
def test_the_models_own_weights_are_left_alone(
    loaded: LoadedPipeline, before: dict[str, torch.Tensor], result: Recorded
) -> None:
    after = trainable_tensors(loaded.pipeline)
    assert not differing(after, before)
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in after.values())


@on_every_pipeline
def test_equal_seeds_give_equal_bits_though_the_attack_is_stopped(
    name: str, loaded: LoadedPipeline, attack_data: AttackData, result: Recorded, tmp_path: Path
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(12345)  # no attack may draw from the global stream
        resumed = stopped_after_a_step(tmp_path, lambda attempt: attack(name, loaded, attack_data, attempt=attempt))
    # What was saved in the first step lies on the disk already.
    assert resumed.saved.keys() >= {step for step in result.saved if step > 1}
    assert all(equal(resumed, step, result) for step in resumed.saved)
    assert resumed.run.history.rows == result.run.history.rows


@on_one_pipeline
def test_checkpoints_do_not_change_the_outcome(
    name: str, loaded: LoadedPipeline, attack_data: AttackData, result: Recorded
) -> None:
    without = attack(name, loaded, attack_data, checkpoints=[])
    assert list(without.saved) == [STEPS]
    assert equal(without, STEPS, result)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("outside", [[0], [STEPS], [STEPS + 1], [-1]])
def test_checkpoints_lie_on_the_way(name: str, outside: list[int]) -> None:
    config_class = registry.config_class("attacks", name)
    with pytest.raises(ConfigError, match="checkpoints"):
        smallest(config_class, steps=STEPS, checkpoints=outside)
