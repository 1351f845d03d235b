"""Searches on the tiny pipeline: the scripts of the rules search and tune, and what they write."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from resalign.config.experiment import Experiment
from resalign.config.plan import Plan
from resalign.jobs import tune

from .conftest import Workshop, load_script

pytestmark = pytest.mark.slow

TUNING: dict[str, Any] = {
    "method": "graddiff",
    "fields": {"alpha": {"low": 0.1, "high": 10.0}, "lr": {"low": 1e-4, "high": 1e-2}},
    "differentiable": ["alpha"],
    "searchers": ["random", "tpe", "pbt", "pbt_hypergradient"],
    "budget": 1600,
    "segments": 2,
    "seeds": [0, 1],
    "window": 1,
    "validation": {
        "harmful": "denoising",
        "truncation": 1.5,
        "solver": "identity",
        "draws": 1,
        "batch_size": 2,
        "retain_batch_size": 2,
        "hessian_batch_size": 2,
        "simulation": {"lr": [1e-3], "steps": [2], "adaptation": ["full"], "optimizer": ["sgd"], "batch_size": 2},
    },
}
METHOD = {"steps": 4, "batch_size": 2, "retain_batch_size": 2, "truncation": 1.5}


@pytest.fixture(scope="module")
def plan(tiny_plan: Callable[..., Plan]) -> Plan:
    return tiny_plan(unlearning={"graddiff": METHOD}, tuning=TUNING)


@pytest.fixture(scope="module")
def done(workshop: Callable[[], Workshop], plan: Plan) -> Path:
    place = workshop()
    for script in ("tune", "tuned"):
        place.scripts[script] = load_script(script)
    for name, seed, folder in tune.TunedJob.of(plan).searches:
        job, modules = tune.TuneJob.search(plan, name), tune.modules(plan, name)
        place.call("tune", job, str(folder), seed=seed, modules=modules)
    return place.call("tuned", tune.TunedJob.of(plan), "results/tiny/tuning")


def test_everything_that_the_rule_declares_is_written(done: Path) -> None:
    files = {path.name for path in done.iterdir() if path.is_file()}
    assert files == {*tune.SHOWN, "run.json", "timing.json", "hashes.json"}


def test_each_search_has_its_own_record(done: Path, plan: Plan) -> None:
    tables = {}
    for name, seed, folder in tune.TunedJob.of(plan).searches:
        trials = pd.read_csv(done.parents[2] / folder / "trials.csv")
        tables[name, seed] = trials
        assert (trials["evaluations"] <= TUNING["budget"]).all()
        assert trials["value"].notna().all()
        record = json.loads((done.parents[2] / folder / "run.json").read_text())
        assert (record["seed"], record["job"]["searcher"]) == (seed, name)
    assert not tables["random", 0].equals(tables["random", 1])
    assert tables["pbt_hypergradient", 0]["derivative.alpha"].notna().any()
    best = pd.read_csv(done / "best.csv")
    for row in best.to_dict("records"):
        trials = tables[row["searcher"], row["seed"]]
        whole = trials[trials["steps"] == METHOD["steps"]]
        assert row["value"] == pytest.approx(whole["value"].min(), rel=1e-5)
    curves = pd.read_csv(done / "curves.csv")
    for _, curve in curves.groupby(["searcher", "seed"]):
        assert curve["value"].dropna().is_monotonic_decreasing


def test_what_was_found_is_an_experiment(done: Path, plan: Plan, tiny_values: dict[str, Any]) -> None:
    values = yaml.safe_load((done / "tuned.yaml").read_text())
    assert values.pop("extends") == "tiny.yaml"
    experiment = Experiment({**tiny_values, **values}, where="tuned.yaml")
    assert Plan(experiment).unlearn  # no two models of equal settings
    best = pd.read_csv(done / "best.csv").set_index(["searcher", "seed"])
    assert len(experiment.unlearning) == len(best) == 8
    for (searcher, seed), row in best.iterrows():
        found: Any = experiment.unlearning[f"graddiff-{searcher}-{seed}"].config
        assert found.alpha == pytest.approx(row["alpha"], rel=1e-5)
        assert found.lr == pytest.approx(row["lr"], rel=1e-5)
        assert found.batch_size == 2
    text = (done / "tuning.md").read_text()
    assert text.count("| ") > 16
    assert "minus that of random search" in text
    changes = best.loc["pbt_hypergradient", "changes"].sum()
    assert f"Derivatives were taken in {changes} of {changes} changes" in text
