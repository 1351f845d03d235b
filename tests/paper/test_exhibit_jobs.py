"""Which exhibits an experiment has, and what it says of the others."""

import json

import pytest

from resalign.config import registry
from resalign.config.plan import Plan, load_plan
from resalign.paper import exhibit_jobs


@pytest.fixture
def plan() -> Plan:
    return load_plan("config/demo.yaml")


def test_every_exhibit_is_planned_or_left_out_with_a_reason(plan: Plan) -> None:
    planned, left_out = exhibit_jobs.planned(plan), exhibit_jobs.left_out(plan)
    assert sorted([*planned, *left_out]) == registry.members("exhibits")
    assert {"table1", "figure1", "figure2", "figure3", "figure6", "macros", "tests", "thresholds"} <= set(planned)
    text = exhibit_jobs.message(plan)
    assert all(f"left out: {name} needs" in text for name in left_out)
    contents = json.loads(exhibit_jobs.exhibit_job(plan, "contents"))["plan"]
    assert {entry["exhibit"]: entry["left_out"] for entry in contents if entry["left_out"]} == left_out


def test_a_declared_ablation_is_planned_and_read(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exhibit_jobs, "declared_ablations", lambda _: ("gamma",))
    assert "figure5" in exhibit_jobs.planned(plan)
    assert exhibit_jobs.frames_of(plan, "figure5")["ablation"] == "results/demo/ablations/gamma/values.csv"
    assert "table3" in exhibit_jobs.left_out(plan)


def test_sweeps_stand_in_for_ablations() -> None:
    plan = load_plan("config/studies/paper-attacks.yaml")
    assert {"table2", "table4", "table5", "figure4"} <= set(exhibit_jobs.planned(plan))
    assert "ablation" not in exhibit_jobs.frames_of(plan, "table4")


def test_an_experiment_without_attacks_has_what_needs_none() -> None:
    plan = load_plan("config/demo.yaml", {"attacks": {}})
    assert set(exhibit_jobs.left_out(plan)) >= {"figure1", "figure2", "figure6", "meta_unlearning", "resurgence"}
    assert "theory/slices.csv" in exhibit_jobs.left_out(plan)["figure6"]
    assert {"table1", "rgd"} <= set(exhibit_jobs.planned(plan))


def test_only_the_papers_own_configuration_is_compared() -> None:
    paper = load_plan("config/config.yaml")
    assert exhibit_jobs.is_comparable(paper)
    assert not exhibit_jobs.is_comparable(load_plan("config/config.yaml", {"tier": "small"}))
    assert not exhibit_jobs.is_comparable(load_plan("config/demo.yaml", {"tier": "paper"}))


def test_only_the_list_of_contents_changes_with_the_other_exhibits(plan: Plan) -> None:
    others = [name for name in exhibit_jobs.exhibits() if name != exhibit_jobs.CONTENTS]
    assert all(json.loads(exhibit_jobs.exhibit_job(plan, name))["plan"] == [] for name in others)
    assert "src/resalign/paper/published.csv" in exhibit_jobs.exhibit_code("table1")
    assert "src/resalign/paper/published.csv" not in exhibit_jobs.exhibit_code("figure1")
