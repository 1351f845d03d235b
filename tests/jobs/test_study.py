"""What the study's rules are told, of the configurations in the repository."""

from pathlib import Path
from typing import Any

import pytest

from resalign.config.experiment import Experiment
from resalign.config.plan import Plan, load_plan
from resalign.config.strict import ConfigError, read_yaml
from resalign.config.study import StudyConfig
from resalign.jobs import measure, study
from resalign.study.selection import family

ROOT = Path(__file__).resolve().parents[2]
STUDY, SEARCH = (ROOT / "config" / "studies" / f"{name}.yaml" for name in ("resilience", "resilience-search"))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return load_plan(STUDY)


def test_the_study_has_the_models_that_the_claims_name(plan: Plan) -> None:
    assert study.checked(plan) is plan
    assert set(StudyConfig().models) <= set(plan.experiment.unlearning)


def test_a_contrast_differs_in_one_component_only(plan: Plan) -> None:
    members = plan.experiment.unlearning
    for contrast in StudyConfig().contrasts:
        treated, control = (members[name].resolved() for name in (contrast.treated, contrast.control))
        differing = {key for key in treated if treated[key] != control[key]}
        assert len(differing - {"simulation"}) <= 1, (contrast.component, differing)
        assert treated["name"] == control["name"]
        assert treated["lr"] == control["lr"]


def test_rows_are_named_by_the_attacks_labels(plan: Plan) -> None:
    job, listed = study.StudyJob.of(plan), measure.rows(plan)
    rows = {(row.model, row.attack): row for row in listed}
    assert len(rows) == len(listed) == len(job.models) * (1 + len(job.attacks))
    assert {attack for _, attack in rows} == {"none", *plan.experiment.attacks}
    for (model, attack), row in rows.items():
        assert f"/{model}.{attack}-" in row.folders["score"] or attack == "none"
    assert len(rows["base", "none"].seeds) == 1
    assert job.command.endswith("-- study")


def test_files_are_those_that_are_read(plan: Plan) -> None:
    job = study.StudyJob.of(plan)
    assert set(job.inputs()) > {f"{folder}/timing.json" for *_, folder in job.timings}
    assert set(job.inputs()) > set(measure.files(plan))


def test_the_search_has_settings_of_every_method_that_the_study_compares() -> None:
    search, config = load_plan(SEARCH), StudyConfig()
    assert {family(label) for label in search.experiment.unlearning} == {*config.baselines, config.method}
    assert study.StudyJob.of(search).command.endswith("-- selection")


def test_search_and_study_share_no_seed(plan: Plan) -> None:
    search = load_plan(SEARCH)
    assert not set(search.experiment.tier.training_seeds) & set(plan.experiment.tier.training_seeds)
    assert search.experiment.config.sampling.seed != plan.experiment.config.sampling.seed


def test_an_experiment_without_the_models_is_no_study() -> None:
    with pytest.raises(ConfigError, match=r"the study's claims name .*'first-order'.* which 'unlearning' lacks"):
        study.checked(load_plan(SEARCH))


def test_an_experiment_without_the_metrics_is_no_study() -> None:
    values: dict[str, Any] = read_yaml(STUDY)
    del values["metrics"]["retained_accuracy"]
    with pytest.raises(ConfigError, match=r"a study counts the metrics \['retained_accuracy'\]"):
        study.StudyJob.of(Plan(Experiment(values, where="study.yaml")))
