"""Records of an archive, held to its configuration: every shipped experiment's are right, a changed one is not."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from resalign import disclosure
from resalign.artifact import rebuild, records
from resalign.artifact.records import RecordError
from resalign.config.ablations import Ablations
from resalign.config.closure import ROOT
from resalign.config.experiment import Experiment
from resalign.config.plan import Plan
from resalign.config.strict import ConfigError, read_yaml
from resalign.jobs import theory
from resalign.jobs.ablation import AblationJob
from resalign.jobs.measure import MeasureJob
from resalign.jobs.report import ReportJob
from tests.config.test_recipes import RECIPES, merged

Job = dict[str, Any]
SHIPPED = ["demo", "config", *(f"studies/{path.stem}" for path in sorted((ROOT / "config/studies").glob("*.yaml")))]


def plan_of(name: str) -> tuple[Plan, dict[str, Any]]:
    values = merged(name) if name in RECIPES else read_yaml(ROOT / "config" / f"{name}.yaml")
    return Plan(Experiment(values, where=name)), values


def as_packed(plan: Plan) -> tuple[Job, dict[str, Any]]:
    """The jobs of frames and report, together, as their records have them; the configuration as the archive has it."""
    job = {**json.loads(MeasureJob.of(plan).text()), **json.loads(ReportJob.of(plan).text())}
    return job, yaml.safe_load(yaml.safe_dump(job["config"], sort_keys=False))


def check(job: Job, config: dict[str, Any]) -> None:
    """Holds both jobs to the configuration."""
    fields = (ReportJob.model_fields, MeasureJob.model_fields)
    report, measured = ({key: job[key] for key in own if key in job} for own in fields)
    records.check_report(report, measured, records.plan_of(config), config)


@pytest.mark.parametrize("name", [*SHIPPED, *RECIPES])
def test_the_records_of_every_shipped_experiment_are_right(name: str) -> None:
    plan, values = plan_of(name)
    job, config = as_packed(plan)
    check(job, config)
    tables = theory.TheoryShownJob.of(plan).plain()["tables"]
    assert records.check_states(tables["sharpness"], job) == theory.measured_states(plan)
    ablations = Ablations(plan, values, ROOT / "config" / "ablations.yaml")
    for ablation in ablations.entries if name in SHIPPED else ():
        records.check_ablation(AblationJob.of(ablations, ablation).plain(), job, ablation)


@pytest.fixture(scope="module")
def demo() -> Plan:
    return plan_of("demo")[0]


def _first(job: Job, attack: str = "none", model: str = "base") -> Any:
    return next(row for row in job["rows"] if (row["attack"], row["model"]) == (attack, model))


CHANGES: dict[str, Callable[[Job], Any]] = {
    "base": lambda job: job.update(base="esd"),
    "models": lambda job: job["models"].append("mine"),
    "attacks": lambda job: job["attacks"].pop(),
    "main_attacks": lambda job: job["main_attacks"].pop(),
    "attacks'": lambda job: job["main_attacks"].append("mine"),
    "metrics": lambda job: job["metrics"].append(["mine", {"name": "ip"}]),
    "flags": lambda job: job.update(flags="fid"),
    "report": lambda job: job["report"].update(replicates=1),
    "tier": lambda job: job.update(tier="paper"),
    "training_seeds": lambda job: job.update(training_seeds=[7]),
    "seeds": lambda job: _first(job).update(seeds=[7]),
    "rows.10.seeds": lambda job: _first(job, model="resalign").update(seeds=job["training_seeds"][:1]),
    "seeds'": lambda job: _first(job).update(seeds=[True]),
    "folders": lambda job: _first(job)["folders"].update({"x": "/etc"}),
    "rows": lambda job: job["rows"].append(_first(job)),
    "dataset": lambda job: _first(job, job["attacks"][0][0]).update(dataset="mine"),
    "results/demo/measured": lambda job: _first(job).update(before={"0": "results/demo/measured"}),
    "references": lambda job: job["references"].update({"digits-data/reference": "results/demo/measured/values.csv"}),
    "compared": lambda job: job["compared"]["fid"].update(none="digits-data/forget"),
    "heldout": lambda job: job["heldout"].clear(),
    "scorer_check": lambda job: job.update(scorer_check="/etc/hosts"),
    "overlap": lambda job: job.update(overlap=None),
    "timings": lambda job: job["timings"].append(["score", "x", 0, "results/../../etc"]),
    "config": lambda job: job["config"].update(title="mine"),
}


@pytest.mark.parametrize("key", CHANGES)
def test_a_changed_key_is_named(key: str, demo: Plan) -> None:
    job, config = as_packed(demo)
    CHANGES[key](job)
    with pytest.raises(RecordError, match=rf"^results/demo/(measured/)?run\.json: .*{key.strip(chr(39))}") as caught:
        check(job, config)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


SWEPT: list[Callable[[Any], Any]] = [
    lambda sweep: sweep.update(axis="mine"),
    lambda sweep: sweep["attacks"].pop(),
    lambda sweep: sweep["attacks"][0].reverse(),
    lambda sweep: sweep["attacks"][0].__setitem__(1, sweep["attacks"][1][1]),
    lambda sweep: sweep["attacks"][2].__setitem__(1, sweep["attacks"][1][1]),
]


@pytest.mark.parametrize("change", SWEPT)
def test_the_axis_of_a_sweep_cannot_be_labelled_otherwise(change: Callable[[Any], Any]) -> None:
    job, config = as_packed(plan_of("studies/attacks")[0])
    change(dict(job["sweeps"])["table4-lora"])
    with pytest.raises(RecordError, match=r"run\.json: 'sweeps\."):
        check(job, config)


def test_the_attacks_of_a_sweep_by_name_are_the_configuration_s() -> None:
    job, config = as_packed(plan_of("studies/attacks")[0])
    pairs = dict(job["sweeps"])["table2"]["attacks"]
    pairs[0][1], pairs[1][1] = pairs[1][1], pairs[0][1]
    with pytest.raises(RecordError, match="'sweeps."):
        check(job, config)


def test_without_a_main_all_that_no_sweep_has_made_are_in_the_main_table(demo: Plan) -> None:
    _, values = plan_of("demo")
    [attack, *_] = demo.experiment.config.attacks
    sweep = {
        "title": "Rates",
        "attack": attack,
        "values": {"fast": {"lr": 3e-3}, "lora": {"attack": "lora"}, "own": {}},
    }
    job, config = as_packed(Plan(Experiment({**values, "sweeps": {"rates": sweep}}, where="mine")))
    check(job, config)
    job["main_attacks"].remove(attack)
    with pytest.raises(RecordError, match="'main_attacks' is "):
        check(job, config)


@pytest.mark.parametrize(
    "changes",
    [
        {"title": "mine"},
        {"artifact": {"images": False, "weights": False, "tolerance": 1}},
        {"tier": "huge"},
        {"model": 3},
    ],
)
def test_a_configuration_that_is_none_is_refused(changes: dict[str, Any], demo: Plan) -> None:
    job, config = as_packed(demo)
    with pytest.raises((RecordError, ConfigError)):
        check(job, {**config, **changes})


def test_paths_in_the_packers_home_folder_are_others_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, values = plan_of("demo")
    values = {**values, "assets": {**values["assets"], "mine": {"path": "~/mine"}}, "pipelines": {"other": "mine"}}
    monkeypatch.setenv("HOME", str(tmp_path / "packer"))
    record, config = map(disclosure.values_without_places, as_packed(Plan(Experiment(values, where="mine"))))
    assert config["assets"]["mine"]["path"] == "~/mine"
    monkeypatch.setenv("HOME", str(tmp_path / "verifier"))
    check(record, config)


def test_defaults_that_were_added_since_are_no_difference(demo: Plan) -> None:
    job, config = as_packed(demo)
    for older in (job["config"], config):
        del older["artifact"]["images"], older["unlearning"]["esd"]["start_guidance"], older["report"]["replicates"]
    del job["report"]["replicates"]
    check(job, config)
    del job["report"]["resurgence_threshold"]
    with pytest.raises(RecordError, match="report.resurgence_threshold' is None"):
        check(job, config)


def test_no_other_configuration_is_read(demo: Plan) -> None:
    _, config = as_packed(demo)
    assert records.plan_of({**config, "extends": "/dev/full"}).unlearn.keys() == demo.unlearn.keys()


@pytest.mark.parametrize("part", ["/etc/x.csv", "results/runs/theory/mine-0123456789/seed-0/sharpness.csv", 3, None])
def test_sharpness_is_read_of_the_report_s_models_alone(part: Any, demo: Plan) -> None:
    with pytest.raises(RecordError, match="is not where the plan puts it"):
        records.check_states([part], as_packed(demo)[0])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"job": []}', '{"job": NaN}', "[" * 100_000, "\N{SNOWMAN}"])
def test_what_is_no_record_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "run.json").write_text(text, encoding="utf-16" if text == "\N{SNOWMAN}" else "utf-8")
    with pytest.raises(RecordError, match=r"^x/run\.json: (is no record of a job|its job is no mapping)"):
        records.told(tmp_path, "x")


def test_a_record_that_would_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "run.json").touch()
    os.truncate(tmp_path / "run.json", records.MOST_RECORD_BYTES + 1)
    with pytest.raises(RecordError, match=r"run\.json: has 67,108,865 bytes; at most 67,108,864 are read"):
        records.told(tmp_path, ".")
    with pytest.raises(RecordError, match=r"rebuild\.json: has 67,108,865 bytes"):
        rebuild.read_words(tmp_path / "run.json")
