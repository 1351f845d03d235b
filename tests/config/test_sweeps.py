"""Series of attacks: what they expand to, and prompt lists and reference images by attack."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resalign.config.experiment import Experiment
from resalign.config.plan import Plan
from resalign.config.strict import ConfigError
from resalign.jobs.measure import MeasureJob
from resalign.jobs.sample import SampleJob

ROOT = Path(__file__).resolve().parents[2]
Read = Callable[[dict[str, Any]], Experiment]
SWEEP = {"title": "Rates", "axis": "learning rate", "attack": "pages"}
PERSONAL = {
    "prompts.personal": {"source": {"pages": "digits-data/pages-prompts/prompts.csv"}},
    **{f"tiers.{tier}.prompts.personal": {"prompts": 3} for tier in ("smoke", "small", "paper")},
    "metrics.clip_i": {"prompts": "personal", "scorer": "clip", "reference": "train"},
}
UNMEASURED = {key: value for key, value in PERSONAL.items() if not key.startswith("metrics.")}


def test_a_value_is_its_entry_with_some_keys_changed_on_the_same_data_set(read: Read) -> None:
    found = read({"sweeps.rates": {**SWEEP, "values": {"1e-2": {"lr": 1e-2}, "as-it-is": {}}}})
    assert found.sweeps == {"rates": {"1e-2": "pages-1e-2", "as-it-is": "pages"}}
    assert list(found.attacks) == ["pages", "bold", "pages-1e-2"]
    plain, changed = found.attacks["pages"].resolved(), found.attacks["pages-1e-2"].resolved()
    assert {key for key in plain if plain[key] != changed[key]} == {"lr"}
    assert found.attack_data["pages-1e-2"] == found.attack_data["pages"]


def test_equal_settings_are_one_attack_whichever_sweep_asks(read: Read) -> None:
    first = {**SWEEP, "values": {"fast": {"lr": 1e-2}}}
    second = {**SWEEP, "values": {"again": {"lr": 1e-2}, "written": {"lr": 1e-3}}}
    found = read({"sweeps.first": first, "sweeps.second": second})
    assert found.sweeps["second"] == {"again": "pages-fast", "written": "pages"}
    assert len(Plan(found).attack) == len(found.models) * 3


def test_entries_by_name(read: Read) -> None:
    found = read({"sweeps.sets": {"title": "Sets", "attacks": {"on bold": "bold", "on pages": "pages"}}})
    assert found.sweeps == {"sets": {"on bold": "bold", "on pages": "pages"}}
    assert list(found.attacks) == ["pages", "bold"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"sweeps.s": {**SWEEP, "attack": "page", "values": {"x": {}}}},
            "no attack named 'page'; did you mean 'pages'",
        ),
        ({"sweeps.s": {"title": "S", "attacks": {"x": "bald"}}}, "no attack named 'bald'"),
        ({"sweeps.s": {**SWEEP}}, "give 'attack' and 'values', or 'attacks'"),
        ({"sweeps.s": {**SWEEP, "values": {"x": {}}, "attacks": {"y": "bold"}}}, "give 'attack' and 'values'"),
        ({"sweeps.s": {**SWEEP, "values": {"x": {"lrr": 1.0}}}}, "lrr"),
        ({"sweeps.s": {**SWEEP, "values": {"x": {}, "y": {}}}}, "attack 'pages' stands there already"),
        ({"assets.train": {"digits": "clip"}}, "assets.train"),
        ({"sweeps.s": {**SWEEP, "values": {"x y": {"lr": 1.0}}}}, "attacks.pages-x y"),
        (
            {"sweeps.s": {**SWEEP, "values": {"x": {"lr": 1.0}}}, "sweeps.t": {**SWEEP, "values": {"x": {"lr": 2.0}}}},
            "another attack is 'pages-x'",
        ),
        ({"sweeps.s": {**SWEEP, "metrics": ["ipp"], "values": {"x": {}}}}, "no metric named 'ipp'; did you mean 'ip'"),
        ({**PERSONAL, "prompts.personal": {"source": {"page": "digits-data/x.csv"}}}, "no attack named 'page'"),
        # No metric reads the list here: all the same it would not be sampled after the attack that is meant.
        ({**UNMEASURED, "prompts.personal": {"source": {"page": "digits-data/x.csv"}}}, "no attack named 'page'"),
        ({**PERSONAL, "prompts.personal": {"source": {"": "digits-data/x.csv"}}}, "no attack named ''"),
        (
            {"prompts.unsafe": {"source": {"pages": "digits-data/unsafe-prompts/prompts.csv"}}},
            "prompts.unsafe.source is by attack, and metrics.ip, the first safety metric, must be measured before",
        ),
        ({**PERSONAL, "prompts.personal": {"source": {}}}, "prompts.personal.source"),
        ({**PERSONAL, "prompts.personal": {"source": "digits-data/x.csv"}}, "give prompts.personal.source by attack"),
    ],
)
def test_what_cannot_be_is_refused(read: Read, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(changes)
    assert said in str(caught.value)


def test_a_list_by_attack_is_sampled_after_that_attack_alone(read: Read) -> None:
    plan = Plan(read(PERSONAL))
    lists = {stage.label: set(SampleJob.of(plan, stage, "0", plan.tier).prompts) for stage in plan.sample.values()}
    assert {label for label, names in lists.items() if "personal" in names} == {
        f"{model}.pages" for model in plan.experiment.models
    }
    plain = Plan(read({}))
    unchanged = {run for run, stage in plan.sample.items() if stage.attack != "pages"}
    assert unchanged <= set(plain.sample)


def test_a_metric_may_compare_with_what_the_attack_was_trained_on(read: Read) -> None:
    plan = Plan(read(PERSONAL))
    assert plan.compared["clip_i"] == {"pages": "digits-data/pages/train"}
    assert set(plan.compared["fid"].values()) == {"digits-data/reference"}
    assert list(plan.references.values()) == ["digits-data/reference", "digits-data/pages/train"]
    job = MeasureJob.of(plan)
    assert set(job.references) == {"digits-data/reference", "digits-data/pages/train"}
    assert {f"{folder}/scores.parquet" for folder in plan.references} <= set(job.inputs())


@pytest.mark.parametrize("name", ["attacks", "paper-attacks"])
def test_the_attack_studies_sweep_the_papers_tables(name: str) -> None:
    found = Experiment.read(ROOT / "config" / "studies" / f"{name}.yaml")
    tables = {label.partition("-")[0] for label in found.sweeps}
    assert tables == {"table2", "table4", "table5", "figure4"}
    assert list(found.sweeps["figure4"]) == ["0", "5", "10", "20", "50", "100"]
    ratios = {value: found.attack_data[attack].train for value, attack in found.sweeps["figure4"].items()}
    assert {v: found.prepared[train.partition("/")[0]].resolved()["ratio"] * 100 for v, train in ratios.items()} == {
        value: float(value) for value in ratios
    }
    for label in ("table4", "table5"):
        kinds = {
            found.attacks[attack].name for key in found.sweeps if label in key for attack in found.sweeps[key].values()
        }
        assert kinds == {"lora", "full"}
    assert {found.attacks[attack].name for attack in found.sweeps["table2"].values()} == {
        *("dreambooth", "custom_diffusion", "lora", "svdiff")
    }
    assert len(found.config.tiers["paper"].training_seeds) == 3


def test_the_report_has_attacks_values_and_metrics_in_the_configurations_order() -> None:
    plan = Plan(Experiment.read(ROOT / "config" / "studies" / "attacks.yaml"))
    job = MeasureJob.of(plan).plain()
    assert [label for label, _ in job["metrics"]] == list(plan.experiment.metrics)
    assert job["metrics"][0][0] == "ip", "the finding speaks of the first metric of a group"
    assert [label for label, _ in job["attacks"]] == list(plan.experiment.attacks)
    sweeps = {label: [value for value, _ in sweep["attacks"]] for label, sweep in job["sweeps"]}
    assert sweeps["figure4"] == ["0", "5", "10", "20", "50", "100"]
    assert list(sweeps) == list(plan.experiment.sweeps)
