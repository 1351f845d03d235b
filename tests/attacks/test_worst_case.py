"""The search against its candidates run one by one; killed anywhere, it ends with the same outcome."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resalign.attacks import full, worst_case
from resalign.config.strict import ConfigError
from resalign.contracts import AttackData, Run
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.objectives.denoising import denoising_loss
from resalign.running import attempt as running_attempt
from resalign.running.attempt import Attempt
from resalign.running.folder import StateFolder
from resalign.tensors.params import Params
from resalign.tensors.steps import DivergenceError
from tests.nearness import differing
from tests.weight_names import of_denoiser

from .recorded import attacked

# The middle rate learns best, the last one overshoots.
RATES, COUNTS = (1e-2, 0.3, 6.0), (1, 3)
OTHER = {"batch_size": 2, "optimizer": "sgd", "heldout_batch_size": 4}
SETTINGS = {"candidate": OTHER, "learning_rates": RATES, "steps": 3, "checkpoints": [1], "harmful_batch_size": 8}
Saved = dict[int, dict[str, torch.Tensor]]


class Clock:
    """A second passes at each step, and none while its state is saved: every step is."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Killed(BaseException):
    """What no code may catch."""


def searched(
    loaded: LoadedPipeline,
    data: AttackData,
    attempt: Attempt | None = None,
    clock: Clock | None = None,
    kill_after: int | None = None,
    **settings: Any,
) -> tuple[Saved, Run, int]:
    """The winners, the run, and how many optimizer steps it has taken; killed right after one of them, if asked."""
    saved: Saved = {}
    taken, clock = 0, clock or Clock()

    def counted(steps: range) -> Any:
        nonlocal taken
        for step in steps:
            if taken == kill_after:
                raise Killed
            clock.now += 1
            yield step
            taken += 1

    def save(step: int, weights: Params, _lora: object = None, /) -> None:
        saved[step] = of_denoiser(loaded, weights)

    run = Run(0, progress=counted, attempt=attempt or Attempt())
    worst_case.attack(loaded, data, worst_case.Config.parse({**SETTINGS, **settings}, where="test"), run, save)
    return saved, run, taken


def one_by_one(loaded: LoadedPipeline, data: AttackData) -> dict[tuple[float, int], dict[str, Any]]:
    """Each candidate as an attack of its own, with its harmful error."""
    assert data.harmful is not None
    batch = data.harmful.draw_stratified(8, Run(0).generator("attack", "harmful"))
    candidates = {}
    for lr, steps in itertools.product(RATES, COUNTS):
        alone = attacked(full, loaded, data, **OTHER, lr=lr, steps=steps)
        with torch.no_grad():
            error = denoising_loss(loaded.denoiser, alone.denoiser, batch).item()
        heldout = alone.history("heldout_loss")[steps]
        candidates[lr, steps] = {"weights": alone.denoiser, "error": error, "heldout": heldout}
    return candidates


def recorded(run: Run) -> dict[tuple[str, int], float]:
    return {(name, step): value for step, name, value in run.history.rows}


def same(first: Saved, second: Saved) -> bool:
    return first.keys() == second.keys() and not any(differing(second[step], first[step]) for step in first)


@pytest.fixture(scope="module")
def whole(loaded: LoadedPipeline, attack_data: AttackData) -> tuple[Saved, Run, int]:
    return searched(loaded, attack_data)


def test_the_worst_of_the_candidates_and_their_mean(
    loaded: LoadedPipeline, attack_data: AttackData, whole: tuple[Saved, Run, int]
) -> None:
    saved, run, taken = whole
    candidates, told = one_by_one(loaded, attack_data), recorded(run)
    assert list(saved) == [1, 3]
    assert taken == 9
    for steps in COUNTS:
        allowed = {key: found["error"] for key, found in candidates.items() if key[1] <= steps}
        winner = min(allowed, key=lambda key: allowed[key])
        assert not differing(saved[steps], candidates[winner]["weights"])
        assert told["worst_harmful_error", steps] == allowed[winner]
        assert told["mean_harmful_error", steps] == pytest.approx(sum(allowed.values()) / len(allowed))
        assert (told["winner_lr", steps], told["winner_steps", steps]) == winner
        assert told["heldout_loss", steps] == candidates[winner]["heldout"]
        assert told["optimizer_steps", steps] == 3 * steps
        for lr, count in candidates:
            assert told[f"harmful_error_lr_{lr:g}", count] == candidates[lr, count]["error"]
    assert told["winner_lr", 3] == 0.3  # neither the first nor the last to be tried
    assert told["worst_harmful_error", 3] < told["harmful_error", 0]


def test_a_longer_candidate_that_is_worse_off_does_not_win(loaded: LoadedPipeline, attack_data: AttackData) -> None:
    # At this rate every step after the first one raises the error.
    saved, run, _ = searched(loaded, attack_data, learning_rates=[6.0])
    told = recorded(run)
    assert told["harmful_error_lr_6", 3] > told["harmful_error_lr_6", 1]
    assert told["winner_steps", 3] == 1
    assert same({0: saved[1]}, {0: saved[3]})


def test_of_equal_candidates_the_first_one_wins() -> None:
    search = worst_case.Search()
    for lr, steps, error in ((1e-4, 3, 0.5), (1e-3, 1, 0.5), (1e-3, 3, 0.4), (1e-2, 3, 0.4)):
        search.add((1, 3), worst_case.Winner(error, 0.0, lr, steps, {"w": torch.zeros(1)}))
    assert {s: (winner.lr, winner.steps) for s, winner in search.winners.items()} == {1: (1e-3, 1), 3: (1e-3, 3)}


@pytest.mark.parametrize(("done", "left"), [(0, 9), (2, 7), (3, 6), (5, 4), (8, 1)])
def test_a_killed_search_goes_on_without_repeating_what_is_done(
    loaded: LoadedPipeline,
    attack_data: AttackData,
    whole: tuple[Saved, Run, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    done: int,
    left: int,
) -> None:
    monkeypatch.setattr(running_attempt, "SAVE_INTERVAL_SECONDS", 0.0)
    clock = Clock()
    # After 3 steps, and after 6, it is killed between two learning rates.
    with StateFolder(tmp_path, {}) as folder, pytest.raises(Killed):
        searched(loaded, attack_data, Attempt(folder, clock=clock), clock, kill_after=done)
    with StateFolder(tmp_path, {}) as folder:
        saved, run, taken = searched(loaded, attack_data, Attempt(folder, clock=clock), clock)
    assert taken == left
    assert same(saved, whole[0])
    assert run.history.rows == whole[1].history.rows


def test_another_attacks_own_images_reach_it(loaded: LoadedPipeline, attack_data: AttackData) -> None:
    candidate = {**OTHER, "attack": "dreambooth", "prior_weight": 1.0}
    plain, beside = (searched(loaded, attack_data, candidate=c, learning_rates=[1e-2])[0] for c in (OTHER, candidate))
    assert not same(plain, beside)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"candidate": {"attack": "ful"}}, "no attacks named 'ful'; did you mean 'full'?"),
        ({"candidate": {"batchsize": 1}}, "full: unknown key 'batchsize'; did you mean 'batch_size'?"),
        ({"candidate": {"attack": "lora", "rank": 0}}, "lora: key 'rank'"),
        ({"candidate": {"lr": 1e-3}}, "['lr'] are searched; give steps, checkpoints and learning_rates beside"),
        ({"candidate": {"attack": "worst_case"}}, "attack 'worst_case' has no learning rate of its own to search"),
        ({"candidate": {"attack": "hypergradient_relearning"}}, "trains on `harmful`, by which candidates are judged"),
        ({"candidate": "full"}, "key 'candidate'"),
        ({"learning_rates": [1e-3, 1e-3]}, "learning_rates must differ"),
        ({"learning_rates": []}, "key 'learning_rates'"),
        ({"learning_rates": [0.0]}, "key 'learning_rates.0'"),
        ({"budget": 8}, "3 learning rates of 3 steps are 9 optimizer steps, and budget is 8"),
    ],
)
def test_faulty_settings_are_refused_before_any_run(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        worst_case.Config.parse({**SETTINGS, **settings}, where="test")
    assert expected in str(refused.value)


def test_resolved_settings_are_whole_and_read_back() -> None:
    config = worst_case.Config.parse({"candidate": {"attack": "lora"}}, where="test")
    resolved = config.model_dump(mode="json")
    assert resolved["candidate"]["rank"] == 4
    assert not {"lr", "steps", "checkpoints"} & resolved["candidate"].keys()
    assert worst_case.Config.parse(resolved, where="test").model_dump(mode="json") == resolved


@pytest.mark.parametrize(
    ("settings", "data", "error", "message"),
    [
        ({}, {"harmful": None}, ConfigError, "no harmful images to judge candidates by; give 'harmful'"),
        ({"learning_rates": [1e-3, 1e30]}, {}, DivergenceError, "lower"),  # it is no candidate that loses
        (
            {"candidate": {"attack": "textual_inversion", "token": "two", "batch_size": 2}, "learning_rates": [1e-3]},
            {},
            ConfigError,
            "judges only denoisers, its candidate trains text_encoder",
        ),
    ],
)
def test_candidates_that_cannot_be_judged_raise(
    loaded: LoadedPipeline,
    attack_data: AttackData,
    settings: dict[str, Any],
    data: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        searched(loaded, replace(attack_data, **data), **settings)
