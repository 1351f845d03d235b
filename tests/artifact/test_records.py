"""Records of an archive, held to its configuration: every shipped experiment's are right, a changed one is not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from resalign.artifact import records
from resalign.artifact.records import RecordError
from resalign.config import jobs, theory_jobs
from resalign.config.ablations import Ablations
from resalign.config.closure import ROOT
from resalign.config.experiment import Experiment
from resalign.config.plan import Plan
from resalign.config.strict import read_yaml
from resalign.report import ablation_jobs
from tests.config.test_recipes import RECIPES, merged

Job = dict[str, Any]
SHIPPED = ["demo", "config", *(f"studies/{path.stem}" for path in sorted((ROOT / "config/studies").glob("*.yaml")))]


def plan_of(name: str) -> tuple[Plan, dict[str, Any]]:
    values = merged(name) if name in RECIPES else read_yaml(ROOT / "config" / f"{name}.yaml")
    return Plan(Experiment(values, where=name)), values


def as_packed(plan: Plan) -> tuple[Job, dict[str, Any]]:
    """The report's job as its record has it, and the configuration as the archive has it."""
    job = json.loads(jobs.report_job(plan))
    return job, yaml.safe_load(yaml.safe_dump(job["config"], sort_keys=False))


@pytest.mark.parametrize("name", [*SHIPPED, *RECIPES])
def test_the_records_of_every_shipped_experiment_are_right(name: str) -> None:
    plan, values = plan_of(name)
    job, config = as_packed(plan)
    records.check_report(job, config, plan.experiment.config.name)
    assert records.check_states(theory_jobs.parts(plan, "sharpness"), job) == theory_jobs.measured_states(plan)
    ablations = Ablations(plan, values, ROOT / "config" / "ablations.yaml")
    for ablation in ablations.entries if name in SHIPPED else ():
        records.check_ablation(json.loads(ablation_jobs.measuring_job(ablations, ablation)), job, ablation)


@pytest.fixture(scope="module")
def demo() -> Plan:
    return plan_of("demo")[0]


def _first(job: Job, attack: str = "none") -> Any:
    return next(row for row in job["rows"] if row["attack"] == attack)


CHANGES: dict[str, Callable[[Job], Any]] = {
    "base": lambda job: job.update(base="esd"),
    "models": lambda job: job["models"].append("mine"),
    "attacks": lambda job: job["attacks"].pop(),
    "attacks'": lambda job: job["main_attacks"].append("mine"),
    "metrics": lambda job: job["metrics"].append(["mine", {"name": "ip"}]),
    "flags": lambda job: job.update(flags="fid"),
    "report": lambda job: job["report"].update(replicates=1),
    "tier": lambda job: job.update(tier="paper"),
    "training_seeds": lambda job: job.update(training_seeds=[7]),
    "seeds": lambda job: _first(job).update(seeds=[7]),
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
    with pytest.raises(RecordError, match=rf"^results/demo/run\.json: .*{key.strip(chr(39))}") as caught:
        records.check_report(job, config, "demo")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


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
