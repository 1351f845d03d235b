"""Which results of another folder are a plan's: held against their records."""

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from resalign import hashes
from resalign.config.closure import CODE, ROOT, import_closure, source_hash
from resalign.config.plan import load_plan
from resalign.running.adopt import PlannedJob, adopt_command, difference, foreign_runs, planned_jobs, sorted_out

SCRIPT = "scripts/linear_model.py"
JOB = {"prompts": ["it's", "a/b <<< c"], "device": "auto"}
FOLDER, LOG = "results/linear", "logs/a.log"
OUTPUTS = (f"{FOLDER}/table.csv", f"{FOLDER}/run.json", f"{FOLDER}/timing.json")
QUOTED = "'" + json.dumps(JOB, sort_keys=True).replace("'", "'\"'\"'") + "'"
DRY_RUN = f"""\
Building DAG of jobs...
[Sun Nov 29 10:00:00 2026]
localrule all:
    input: results/demo/report.html
    jobid: 0
[Sun Nov 29 10:00:00 2026]
rule linear_model:
    input: mine/list.csv, {CODE}/0123/code.sha256
    output: {", ".join(OUTPUTS)}
    log: logs/linear.log
    jobid: 3
    reason: Updated input files: {CODE}/0123/code.sha256
    wildcards: seed=2
Shell command: python {SCRIPT} --job {QUOTED} --seed 2 --output {FOLDER} --modules resalign.metrics.ip 2>&1 | tee {LOG}
[Sun Nov 29 10:00:00 2026]
rule report:
    input: {FOLDER}/table.csv
    output: results/demo/report.html
    jobid: 1
Shell command: python scripts/report.py --job - --output results/demo <<< {QUOTED} 2>&1 | tee {LOG} && mkdir figures
Job stats:
"""


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A run's results in a folder of their own, and what its record says."""
    monkeypatch.chdir(tmp_path)
    Path(FOLDER).mkdir(parents=True)
    Path("mine").mkdir()
    Path("mine/list.csv").touch()
    os.utime("mine/list.csv", (1000, 1000))
    Path(FOLDER, "table.csv").touch()
    Path(FOLDER, "timing.json").write_text(json.dumps({"started_at": 2000.0}))
    code = source_hash(import_closure(SCRIPT, "resalign.metrics.ip"))
    return {"job": JOB | {"device": "cpu"}, "seed": 2, "source_sha256": code, "versions": {}}


def keep(record: dict[str, Any]) -> None:
    Path(FOLDER, "run.json").write_text(json.dumps(record))
    hashes.seal(Path(FOLDER))


def test_a_dry_run_names_its_jobs(record: dict[str, Any]) -> None:
    measured, report = planned_jobs(DRY_RUN)
    assert (measured.rule, measured.inputs, measured.outputs) == (
        "linear_model",
        ("mine/list.csv", f"{CODE}/0123/code.sha256"),
        OUTPUTS,
    )
    assert report.outputs == ("results/demo/report.html",)
    assert difference(report) == "is not here"


def test_what_agrees_is_taken_over_and_what_reads_the_rest_is_not(record: dict[str, Any]) -> None:
    measured, report = planned_jobs(DRY_RUN)
    keep(record)
    assert sorted_out([measured, report]) == (list(OUTPUTS), {"is not here": ["results/demo/report.html"]})
    keep(record | {"seed": 0})
    assert sorted_out([measured, report]) == (
        [],
        {"is of another seed": [OUTPUTS[0]], "reads what is made again": ["results/demo/report.html"]},
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"source_sha256": "0" * 64}, "is of another source_sha256"),
        ({"job": JOB | {"prompts": []}}, "is of another job"),
        ({"seed": 0, "source_sha256": ""}, "is of another seed and source_sha256"),
    ],
)
def test_a_record_is_held_against_the_plan(record: dict[str, Any], change: dict[str, Any], reason: str | None) -> None:
    keep(record | change)
    assert difference(planned_jobs(DRY_RUN)[0]) == reason


def test_an_input_that_no_record_vouches_for_must_be_older(record: dict[str, Any]) -> None:
    keep(record)
    os.utime("mine/list.csv", (3000, 3000))
    assert difference(planned_jobs(DRY_RUN)[0]) == "reads mine/list.csv, which is newer"


def test_a_job_without_a_record_is_made_again(record: dict[str, Any]) -> None:
    assert difference(planned_jobs(DRY_RUN)[0]) == "is not here"
    keep(record)
    Path(FOLDER, "timing.json").unlink()
    assert difference(PlannedJob("x", (), OUTPUTS[:2], planned_jobs(DRY_RUN)[0].command)) == "has no record"
    assert difference(PlannedJob("ablation_file", (), ("a.csv",), "cp b.csv a.csv")) == "has no record"


@pytest.mark.parametrize("name", ["run.json", "timing.json"])
@pytest.mark.parametrize("content", ["", '{"job": {', "[]", "{}", "0", "[" * 100_000, "\udcff"], ids=range(7))
def test_a_record_of_another_form_is_none(record: dict[str, Any], name: str, content: str) -> None:
    keep(record)
    Path(FOLDER, name).write_text(content, errors="surrogateescape")
    assert difference(planned_jobs(DRY_RUN)[0]) == "has no whole record"


@pytest.mark.parametrize(
    ("files", "config"),
    [
        (("config/demo.yaml",), {}),
        (("config/config.yaml", "config/recipes/pokemon.yaml"), {"tier": "smoke"}),
        (("it's mine.yaml", "$HOME.yaml"), {"unlearning": {"resalign": {"solver": "minres"}}, "title": "a $ b"}),
    ],
)
def test_the_command_hands_on_files_and_values(tmp_path: Path, files: tuple[str, ...], config: dict[str, Any]) -> None:
    told = adopt_command([Path(file).absolute() for file in files], config)
    assert ("'" in told) == bool(config)
    told = told.replace("make", f"make -s -f {shlex.quote(str(tmp_path / 'Makefile'))}", 1)
    Path(tmp_path, "Makefile").write_text('adopt:\n\t@for word in $(CONFIG) $(ARGS); do echo "$$word"; done\n')
    words = subprocess.run(told, shell=True, check=True, capture_output=True, text=True).stdout.splitlines()
    values = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in config.items()]
    assert words == [*files, *(["--config", *values] if config else [])]


def test_runs_of_another_folder_are_counted(record: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    long = {"seven" + "-and" * 40: {"method": "graddiff", "steps": 2, "lr": 1e-3}}
    with monkeypatch.context() as patched:
        patched.chdir(ROOT)
        plan = load_plan("config/demo.yaml", {"tier": "smoke", "unlearning": long})
    assert foreign_runs(plan) == 0
    [run] = plan.unlearn.values()
    Path(run.folder(0)).mkdir(parents=True)
    Path(run.folder(0), "run.json").touch()
    assert foreign_runs(plan) == 1
