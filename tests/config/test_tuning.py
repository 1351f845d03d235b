"""What the key ``tuning`` may say."""

from pathlib import Path
from typing import Any

import pytest

from resalign.config.experiment import Experiment
from resalign.config.plan import Plan, load_plan
from resalign.config.strict import ConfigError
from resalign.jobs import tune

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "config/studies/tuning.yaml"


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def plan(**changes: Any) -> Plan:
    tuning = load_plan(CONFIG).experiment.values["tuning"]
    return load_plan(CONFIG, {"tuning": {**tuning, **changes}})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "resaling"}, r"tuning\.method: no model named 'resaling'; did you mean"),
        ({"searchers": ["randon"]}, r"no tuning\.searchers named 'randon'; did you mean 'random'"),
        (
            {"fields": {"alhpa": {"low": 1.0, "high": 2.0}}, "differentiable": ["alhpa"]},
            r"no number named 'alhpa' .*did you mean 'alpha'",
        ),
        ({"fields": {"alpha": {"low": 2.0, "high": 1.0}}}, "low must be below high, got 2 and 1"),
        ({"fields": {"beta": {"low": 0.5, "high": 1.5}}, "differentiable": ["beta"]}, r"fields\.beta: .*'beta'.* 1"),
        ({"differentiable": ["gamma"]}, r"differentiable: no field named 'gamma'"),
        ({"seeds": [0, 0]}, r"seeds \[0, 0\] must differ"),
        ({"validation": {"harmful": "erasur"}}, r"tuning\.validation: .*no harmful named 'erasur'"),
        ({"budget": 0}, "budget"),
        ({"budget": 7000}, r"tuning\.budget 7000 allows 1 trainings, and tpe draws its first 10 at random"),
        ({"differentiable": []}, r"searchers: pbt_hypergradient needs one of \['alpha', 'beta', 'lr'\]"),
        ({"window": 40}, r"tuning\.window: 40 are more than the 10 steps of a segment"),
        ({"validation": {"simulation": {"adaptation": ["outer"]}}}, "adaptation"),
    ],
)
def test_a_fault_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan(**changes)


def test_a_method_without_steps_has_no_budget() -> None:
    experiment = load_plan(CONFIG).experiment
    values = {"tuning": {**experiment.values["tuning"], "method": "uce"}}
    with pytest.raises(ConfigError, match="'uce' does not say how often a step runs the denoiser"):
        load_plan(CONFIG, {**values, "unlearning": {**experiment.values["unlearning"], "uce": {}}})


def test_what_the_validation_needs_must_be_there() -> None:
    values = load_plan(CONFIG).experiment.values
    concept = {key: value for key, value in values["concept"].items() if key != "substitute"}
    method = {"method": "graddiff", "steps": 40, "batch_size": 8, "retain_batch_size": 16}
    tuning = {**values["tuning"], "method": "gentle", "differentiable": ["alpha"]}
    tuning["fields"] = {"alpha": tuning["fields"]["alpha"]}
    with pytest.raises(ConfigError, match=r"unlearning\.tuning\.validation needs the key concept\.substitute"):
        Experiment({**values, "unlearning": {"gentle": method}, "tuning": tuning, "concept": concept}, where="test")


def test_a_search_of_another_seed_or_searcher_is_the_same_job() -> None:
    one, other = plan(), plan(seeds=[0, 9], searchers=["random"])
    assert tune.TuneJob.search(one, "random").text() == tune.TuneJob.search(other, "random").text()
    assert tune.TuneJob.search(one, "random").text() != tune.TuneJob.search(plan(budget=130000), "random").text()
    assert tune.TuneJob.search(one, "tpe").tuning.validation["hessian_batch_size"] == 4
    assert tune.TuneJob.search(one, "tpe").tuning.validation["draws"] == 2  # resolved
    assert tune.trainings(one) >= 20


def test_every_searcher_and_seed_has_a_job() -> None:
    job = tune.TunedJob.of(load_plan(CONFIG))
    assert len(job.searches) == len(job.tuning.searchers) * len(job.tuning.seeds)
    assert {f"{folder}/trials.csv" for *_, folder in job.searches} == set(job.inputs())
    searches = [tune.TuneJob.search(load_plan(CONFIG), name) for name in job.tuning.searchers]
    assert [search.searcher for search in searches] == list(job.tuning.searchers)
    assert all(search.inputs() == searches[0].inputs() for search in searches)
    read = tune.TuneJob.parse(searches[0].plain(), where="test")
    assert read.tuning.fields == job.tuning.fields


def test_an_experiment_that_searches_nothing_has_no_job() -> None:
    with pytest.raises(
        ConfigError, match="the key 'tuning' is required here; an example is config/studies/tuning.yaml"
    ):
        tune.TunedJob.of(load_plan("config/demo.yaml"))
