"""A job must reach its stage whatever the size of the experiment: Linux has a limit for one argument of a command."""

import io
import re
from pathlib import Path

import pytest

from resalign.config.plan import Plan, load_plan
from resalign.jobs.attack import AttackJob
from resalign.jobs.job import Job
from resalign.jobs.prune import PruneJob
from resalign.jobs.report import ReportJob
from resalign.jobs.sample import SampleJob
from resalign.jobs.unlearn import UnlearnJob
from resalign.running.stage import parse_arguments

ROOT = Path(__file__).resolve().parents[2]
# Rules whose job is one run's.
ONE_RUN = ("attack", "digits", "fetch", "prepare", "prune", "sample", "score", "unlearn")
LONGEST_ARGUMENT_BYTES = 32 * 4096  # MAX_ARG_STRLEN, execve(2)


class Rows(Job):
    """A job of a stage that reads standard input."""

    rows: tuple[int, ...]


@pytest.fixture(scope="module")
def plan() -> Plan:
    """The largest experiment that we ship."""
    return load_plan(ROOT / "config/studies/paper-attacks.yaml")


def test_a_job_of_one_run_is_an_argument(plan: Plan) -> None:
    made: list[Job] = [UnlearnJob.of(plan, stage) for stage in plan.unlearn.values()]
    made += [AttackJob.of(plan, stage, "0") for stage in plan.attack.values()]
    made += [SampleJob.of(plan, stage, "0", plan.tier) for stage in plan.sample.values()]
    made += [PruneJob.of(plan, stage, "0", plan.tier) for stage in plan.score.values()]
    assert max(len(job.text()) for job in made) < LONGEST_ARGUMENT_BYTES / 4


def test_a_job_that_gathers_all_runs_comes_by_standard_input(plan: Plan) -> None:
    assert len(ReportJob.of(plan).text()) > LONGEST_ARGUMENT_BYTES
    rules = [(path.name, path.read_text()) for path in sorted((ROOT / "workflow/rules").glob("*.smk"))]
    commands = {name: re.findall(r"--job (\S+)[^~]*?tee \{log\}", text) for name, text in rules}
    given = {name: found for name, found in commands.items() if found}
    by_argument = {name for name, found in given.items() if set(found) == {"{params.job:q}"}}
    assert by_argument == {f"{name}.smk" for name in ONE_RUN}
    for name, text in rules:
        assert text.count("--job - ") == text.count("<<< {params.job:q} "), name


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", ["stage.py", "--job", "-", "--output", str(tmp_path)])
    monkeypatch.setattr("sys.stdin", io.StringIO('{"rows": [1, 2]}'))
    assert parse_arguments("", Rows).job.rows == (1, 2)
