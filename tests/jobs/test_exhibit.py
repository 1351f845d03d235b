"""Which exhibits an experiment has, and what it says of the others."""

from pathlib import Path
from typing import Any

import pytest

from resalign.config import registry
from resalign.config.experiment import Experiment
from resalign.config.plan import Plan, load_plan
from resalign.config.strict import read_yaml
from resalign.jobs import exhibit as exhibit_jobs
from resalign.jobs import series


@pytest.fixture
def plan() -> Plan:
    return load_plan("config/demo.yaml")


def test_every_exhibit_is_planned_or_left_out_with_a_reason(plan: Plan) -> None:
    planned, left_out = exhibit_jobs.planned(plan), exhibit_jobs.left_out(plan)
    assert sorted([*planned, *left_out]) == sorted([*registry.members("exhibits"), *series.SERIES])
    assert {"table1", "figure1", "figure2", "figure3", "figure6", "macros", "tests", "thresholds"} <= set(planned)
    text = exhibit_jobs.message(plan)
    assert all(f"left out: {name} needs" in text for name in left_out)
    contents = exhibit_jobs.words(plan, "contents").plan
    assert {entry.exhibit: entry.left_out for entry in contents if entry.left_out} == left_out


def test_a_declared_ablation_is_planned_and_read(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        exhibit_jobs, "declared_ablations", lambda _: {"gamma": exhibit_jobs.Ablations(plan, {}).entries["gamma"]}
    )
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
    def reason(path: str, **overrides: object) -> str:
        return exhibit_jobs.another_world(load_plan(path, overrides))

    own = "config/config.yaml"
    values = read_yaml(own)
    assert reason(own) == ""
    assert reason(own, title="Mine", resources={}, report={"published": "comparable", "replicates": 500}) == ""
    more = {"attack": "lora", "train": "dreambench-images/train", "heldout": "dreambench-images/heldout"}
    attacks = {**values["attacks"], "more": {**more, "steps": 10, "batch_size": 1, "lr": 1.0e-4}}
    assert reason(own, attacks=attacks, main_table_attacks=["dreambench", "diffusiondb"]) == ""
    assert "main_table_attacks" in reason(own, attacks=attacks)  # Table 1 would have another column
    assert reason(own, tier="small") == "tier 'small', not 'paper'"
    assert reason("config/demo.yaml", tier="paper") == "the experiment is not the paper's"
    # ResAlign's own images are the paper's, too, and further rows have assets of their own; a user's model is another.
    assert reason("config/studies/released-data.yaml") == reason("config/studies/released.yaml") == ""
    assert "other assets.sd-v1-4 than" in reason(own, assets={"sd-v1-4": {"path": "mine"}})
    fewer = {**values["prepared"], "forget-images": {**values["prepared"]["forget-images"], "first": 100}}
    assert "other prepared.forget-images than config/config.yaml's" in reason(own, prepared=fewer)
    assert "other concept than" in reason(own, concept={**values["concept"], "forget": "diffusiondb-images/train"})


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("sampling", "guidance_scale"), 5.0, "other sampling than"),
        (("metrics", "us", "rule", "threshold"), 0.4, "other metrics than"),
        (("attacks", "dreambench", "lr"), 1.0e-3, "other attacks.dreambench than"),
        (("unlearning", "resalign", "gamma"), 0.5, "other unlearning.resalign than"),
        (("tiers", "paper", "prompts", "coco", "prompts"), 9000, "other tier than"),
        (("tiers", "paper", "training_seeds"), [0], "other tier than"),
        (("concept", "prompts"), ["violence"], "other concept than"),
    ],
)
def test_an_override_of_what_numbers_are_of_is_another_world(place: tuple[str, ...], value: Any, said: str) -> None:
    values = read_yaml("config/config.yaml")
    *parents, last = place
    entry = values
    for parent in parents:
        entry = entry[parent]
    entry[last] = value
    assert said in exhibit_jobs.another_world(Plan(Experiment(values, where="changed")))


def test_a_study_that_inherits_the_flag_is_another_world() -> None:
    reason = exhibit_jobs.another_world(load_plan("config/studies/paper-attacks.yaml", {"tier": "paper"}))
    assert all(word in reason for word in ("metrics", "scorers", "tier", "unlearning.safegen", "attacks.dreambench"))


def test_declared_ablations_of_the_paper_are_of_its_world_and_others_say_what_is_not() -> None:
    paper = load_plan("config/config.yaml")
    declared = exhibit_jobs.declared_ablations(paper)
    for name, entry in declared.items():
        assert series.described(paper, "none", entry, name)[name].other == (), name
    entry = declared["learning_rates"]
    settings = {**entry.settings, "sampling.guidance_scale": 3.0, "metrics.ip.prompts": "coco"}
    other = entry.model_copy(update={"settings": settings, "seeds": (0,)})
    assert series.described(paper, "none", other, "x")["x"].other == (
        *("seeds", "sampling.guidance_scale", "metrics.ip.prompts"),
    )


def test_thresholds_need_a_metric_that_has_some() -> None:
    values = read_yaml("config/demo.yaml")
    accuracy = {"prompts": "named-unsafe", "scorer": "resnet"}
    values["metrics"] = {"concept_accuracy": accuracy, "learnability": {}}
    values |= {"gallery_prompts": "named-unsafe", "flagging_metric": "concept_accuracy"}
    plan = Plan(Experiment(values, where="changed"))
    assert "thresholds" in exhibit_jobs.left_out(plan)["thresholds"]
    assert "thresholds" not in exhibit_jobs.left_out(load_plan("config/demo.yaml"))


def test_macros_read_every_declared_ablation_that_an_exhibit_shows() -> None:
    paper = load_plan("config/config.yaml")
    frames = exhibit_jobs.frames_of(paper, "macros")
    assert frames["table4"] == exhibit_jobs.frames_of(paper, "table4")["ablation"]
    assert {"table2", "table3", "table5", "figure4", "figure5"} <= set(frames)
    assert not {"table2", "table4"} & set(exhibit_jobs.frames_of(load_plan("config/studies/attacks.yaml"), "macros"))


def test_metrics_of_an_ablation_alone_are_code_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paper = load_plan("config/config.yaml")
    found = exhibit_jobs.words(paper, "table2").metric_modules
    assert found == {"clip_t": "clip_score", "clip_i": "clip_i", "dino": "dino"}
    monkeypatch.chdir(tmp_path)
    code = Path(exhibit_jobs.exhibit_code(paper, "table2")).read_text()
    assert all(f"  src/resalign/metrics/{module}.py\n" in code for module in found.values())
    assert "src/resalign/metrics/dino.py" not in Path(exhibit_jobs.exhibit_code(paper, "table1")).read_text()
