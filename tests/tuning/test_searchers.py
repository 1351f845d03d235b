"""Every searcher: its budget, its resumption, what it does with what it finds."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from resalign.config import registry
from resalign.config.passes import Passes
from resalign.config.strict import ConfigError
from resalign.config.tuning import SEARCHERS, Costs, TuningConfig, costs_of
from resalign.contracts import UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.running.folder import StateFolder
from resalign.running.held import capture, restore
from resalign.tensors.steps import DivergenceError
from resalign.tuning.search import Problem, Search
from resalign.tuning.training import State, Values
from resalign.tuning.validation import Config, Judged, Validation
from tests.accounting.test_passes import passes

from .test_training import SMALL, training

NAMES = registry.members(SEARCHERS)
FIELDS = {"alpha": {"low": 0.1, "high": 10.0}, "lr": {"low": 1e-4, "high": 1e-1}}


COSTS = Costs(step=1.0, value=2.0, slope=3.0, steps=6)


def tuning(**settings: Any) -> TuningConfig:
    values = {"method": "graddiff", "fields": FIELDS, "differentiable": ["alpha"], "budget": 400, "segments": 3}
    return TuningConfig.parse({**values, "window": 1, **settings}, where="test")


class Bowl:
    """A training whose one weight follows alpha, and its validation: how far it is from 3, and lr from 0.01."""

    def trained(self, values: Values, until: int, state: State | None = None) -> tuple[dict[str, torch.Tensor], State]:
        if values["lr"] > 0.09:
            raise DivergenceError("lr is too large")
        weight, taken = (state["weight"], state["taken"]) if state else (torch.zeros(1), 0)
        for _ in range(until - taken):
            weight = weight + 0.5 * (values["alpha"] - weight)
        return {"weight": weight, "lr": torch.tensor([values["lr"]])}, {"weight": weight, "taken": until}

    def weights(self, changed: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return changed

    def __call__(self, changed: dict[str, torch.Tensor]) -> Judged:
        distance, rate = float((changed["weight"] - 3) ** 2), abs(math.log10(float(changed["lr"])) + 2)
        return Judged(distance + rate, distance, rate)

    def slope(self, changed: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"weight": 2 * (changed["weight"] - 3), "lr": torch.zeros(1)}


def bowl(name: str, seed: int = 0, **settings: Any) -> Search:
    both: Any = Bowl()
    problem = Problem(both, both, tuning(**settings), COSTS, seed)
    found: Search = registry.member(SEARCHERS, name).Search(problem)
    return found


def searched(search: Search, begin: int = 0) -> Search:
    for position in range(begin, search.rounds):
        search.round(position)
    return search


@pytest.mark.parametrize("name", NAMES)
def test_a_search_stays_within_its_budget_and_its_ranges(name: str) -> None:
    search = searched(bowl(name))
    assert 0.8 * 400 < search.spent <= 400
    assert [trial.evaluations for trial in search.trials] == sorted(trial.evaluations for trial in search.trials)
    assert len(search.trials) == search.rounds
    for trial in search.trials:
        assert all(FIELDS[name]["low"] <= value <= FIELDS[name]["high"] for name, value in trial.values.items())
    whole = [trial for trial in search.trials if trial.steps == COSTS.steps]
    assert len(whole) == len({trial.member for trial in search.trials})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("at", [1, 7, 20])
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not(name: str, at: int, tmp_path: Path) -> None:
    whole = searched(bowl(name))
    stopped = bowl(name)
    for position in range(at):
        stopped.round(position)
    with StateFolder(tmp_path, {}) as folder:
        folder.save({"search": capture(stopped)})
        saved = folder.load()
    assert saved is not None
    again = bowl(name)
    restore(again, saved["search"])
    assert searched(again, at).trials == whole.trials
    assert searched(bowl(name, seed=1)).trials != whole.trials


@pytest.mark.parametrize("name", NAMES)
def test_a_training_that_diverges_is_the_worst(name: str) -> None:
    ranges = {**FIELDS, "lr": {"low": 1e-2, "high": 1.0}}
    search = searched(bowl(name, fields=ranges))
    diverged = [trial for trial in search.trials if not math.isfinite(trial.value)]
    assert diverged
    assert len(diverged) < len(search.trials)
    assert np.isfinite(search.table().query("steps == 6")["value"].min())
    with pytest.raises(DivergenceError, match=r"every training of the search diverged; narrow the ranges"):
        searched(bowl(name, fields={**FIELDS, "lr": {"low": 0.1, "high": 1.0}})).table()


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_for_nothing_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"tuning\.budget 7 (is less than one training|allows no population of two)"):
        bowl(name, budget=7)


def test_the_derivative_says_which_way() -> None:
    search = searched(bowl("pbt_hypergradient", budget=2000))
    moved = [trial for trial in search.trials if trial.derivatives]
    assert len(moved) == 2 * len({trial.member for trial in search.trials})
    before = {(trial.member, trial.steps): trial for trial in search.trials}
    followed = 0
    for trial in moved:
        earlier = before[trial.member, trial.steps - 2]
        if trial.values["lr"] != earlier.values["lr"]:
            continue  # it has taken another's place
        followed += 1
        assert trial.parent == -1
        expected = earlier.values["alpha"] * (1.2 if trial.derivatives["alpha"] < 0 else 0.8)
        assert trial.values["alpha"] == pytest.approx(min(max(expected, 0.1), 10.0))
    assert followed > len(moved) / 2
    # A copy's other field is perturbed, so that it is no clone.
    copies = [trial for trial in moved if trial.parent >= 0]
    assert copies
    for copy in copies:
        source = before[copy.parent, copy.steps - 2]
        assert perturbed({"lr": source.values["lr"]}, {"lr": copy.values["lr"]})
    # d/d log alpha of (w + .5 (alpha − w) − 3)² by hand, at the window's end.
    first = moved[0]
    start = before[first.member, 2]
    alpha = start.values["alpha"]
    weight = alpha * (1 - 0.5**3)
    assert first.derivatives["alpha"] == pytest.approx(2 * (weight - 3) * 0.5 * alpha, rel=0.02)


def perturbed(source: Values, copy: Values) -> bool:
    """Whether each value of a copy is 0.8 or 1.2 of its source's, or at an end of the range."""
    ends = {name: (0.8 * value, 1.2 * value, *FIELDS[name].values()) for name, value in source.items()}
    return all(any(copy[name] == pytest.approx(end) for end in ends[name]) for name in copy)


def test_copies_take_weights_and_values_and_only_they_are_perturbed() -> None:
    search = searched(bowl("pbt", budget=2000))
    before = {(trial.member, trial.steps): trial for trial in search.trials}
    copies = 0
    for trial in search.trials:
        if trial.steps == 2:
            continue
        earlier = before[trial.member, trial.steps - 2]
        if trial.values == earlier.values:
            continue
        copies += 1
        others = [other for other in search.trials if other.steps == earlier.steps]
        assert perturbed(before[trial.parent, earlier.steps].values, trial.values)
        assert earlier.value > np.median([other.value for other in others])
    members = len({trial.member for trial in search.trials})
    assert copies <= 2 * max(1, round(0.2 * members))
    assert copies


@pytest.mark.parametrize("name", NAMES)
def test_what_is_counted_is_what_is_run(name: str, loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    found = training(loaded, unlearning_data, "graddiff")
    config = Config.parse(
        {**SMALL, "solver": {"name": "minres", "rtol": 0.0}, "hessian_products": "finite_difference"}
        | {"gamma": 0.01, "max_residual": 1e9},
        where="test",
    )
    (_, own) = registry.configured("unlearning", found.settings, where="test")
    costs = costs_of(own, config)
    settings = tuning(budget=3000, segments=2, fields={"alpha": FIELDS["alpha"], "lr": {"low": 1e-5, "high": 1e-3}})
    problem = Problem(found, Validation(loaded, unlearning_data, config, 0), settings, costs, seed=0)
    with passes(loaded.denoiser) as seen:
        search: Search = searched(registry.member(SEARCHERS, name).Search(problem))
    assert sum(seen, Passes()).evaluations == search.spent


def test_a_pipelines_derivative_by_a_weight_is_that_of_the_validation_loss(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    found = training(loaded, unlearning_data, "graddiff", optimizer="sgd", max_grad_norm=None, truncation=None)
    judge = Config.parse({**SMALL, "through": "steps", "hessian_products": "finite_difference"}, where="test")
    validation = Validation(loaded, unlearning_data, judge, 0)
    settings = tuning(segments=2, fields={"alpha": {"low": 1.0, "high": 9.0}, "lr": {"low": 5e-3, "high": 6e-3}})
    search: Search = registry.member(SEARCHERS, "pbt_hypergradient").Search(
        Problem(found, validation, settings, Costs(1.0, 1.0, 1.0, 4), seed=0)
    )
    for position in range(search.rounds):
        search.round(position)
    first = next(trial for trial in search.trials if trial.derivatives)
    values = next(trial for trial in search.trials if trial.member == first.member and trial.steps == 2).values
    _, state = found.trained(values, 2)
    ends = []
    for sign in (1, -1):
        weights, _ = found.trained({**values, "alpha": values["alpha"] * math.exp(0.2 * sign)}, 3, state)
        ends.append(validation(weights).value)
    assert first.derivatives["alpha"] == pytest.approx((ends[0] - ends[1]) / 0.4, rel=0.1)


def test_random_search_and_tpe_draw_apart() -> None:
    one, other = (searched(bowl(name)) for name in ("random", "tpe"))
    values = [{trial.values["lr"] for trial in search.trials} for search in (one, other)]
    assert not values[0] & values[1]
    with pytest.raises(ConfigError, match="allows 10 trainings, and tpe draws its first 10 at random"):
        registry.member(SEARCHERS, "tpe").rounds(tuning(budget=80), COSTS)


def test_a_derivative_at_the_end_of_a_range_stays_within_it() -> None:
    class Strict(Bowl):
        def trained(self, values: Values, until: int, state: State | None = None) -> Any:
            assert values["alpha"] <= 3.0, "beyond the range"
            return super().trained(values, until, state)

    both: Any = Strict()
    fields = {"alpha": {"low": 2.9, "high": 3.0}, "lr": FIELDS["lr"]}
    search: Search = registry.member(SEARCHERS, "pbt_hypergradient").Search(
        Problem(both, both, tuning(fields=fields, budget=2000), COSTS, seed=0)
    )
    searched(search)
    at_the_end = [trial for trial in search.trials if trial.derivatives and trial.values["alpha"] == 3.0]
    assert at_the_end
    # The loss falls as alpha nears 3, on both sides of the difference.
    assert all(trial.derivatives["alpha"] < 0 for trial in at_the_end)


def test_without_a_derivative_copies_are_perturbed() -> None:
    class Blind(Bowl):
        def slope(self, changed: dict[str, torch.Tensor]) -> Any:
            raise DivergenceError("no solve")

    both: Any = Blind()
    search: Search = registry.member(SEARCHERS, "pbt_hypergradient").Search(
        Problem(both, both, tuning(budget=2000), COSTS, seed=0)
    )
    searched(search)
    assert not [trial for trial in search.trials if trial.derivatives]
    before = {(trial.member, trial.steps): trial for trial in search.trials}
    copies = [trial for trial in search.trials if trial.parent >= 0]
    assert copies
    assert all(perturbed(before[copy.parent, copy.steps - 2].values, copy.values) for copy in copies)


def test_a_window_is_within_a_segment() -> None:
    with pytest.raises(ConfigError, match=r"tuning\.window: 3 are more than the 2 steps of a segment"):
        registry.member(SEARCHERS, "pbt_hypergradient").rounds(tuning(window=3), COSTS)
    with pytest.raises(ConfigError, match=r"tuning\.segments: 7 are more than the 6 steps"):
        registry.member(SEARCHERS, "pbt").rounds(tuning(segments=7), COSTS)
