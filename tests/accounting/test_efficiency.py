"""What a run has cost: device hours, shares, and whatever is there of a run that was cut off."""

import csv
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import psutil
import pytest

from resalign.accounting import efficiency
from resalign.accounting.job_records import read_job_records
from resalign.accounting.planned_jobs import PlannedJob, tables, unite
from resalign.config.plan import Plan, load_plan
from resalign.running.processes import created_at

from .records import write_record

CONFIG = Path(__file__).resolve().parents[2] / "config"
CORE = "x86_64 core (1 of 2)"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No result of this checkout is seen."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def demo() -> Plan:
    return load_plan(CONFIG / "demo.yaml", {"tier": "smoke"})


def finish(root: Path, jobs: list[PlannedJob], **timing: object) -> None:
    """One job after the other, each 13 s long: 2 s of start, 10 s of work, 1 s of records."""
    for number, job in enumerate(jobs):
        write_record(root, job, **{"started_at": 1000.0 + 13 * number, "ended_at": 1013.0 + 13 * number, **timing})


def rows() -> dict[str, dict[str, dict[str, str]]]:
    with Path("results/demo/efficiency.csv").open(newline="") as file:
        found: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
        for row in csv.DictReader(file):
            found[row["part"]][row["name"]] = row
    return found


def test_hours_and_shares(demo: Plan, tmp_path: Path):
    jobs = tables(demo)["table1"]
    finish(tmp_path, jobs)
    text = efficiency.summarise(demo, run_started_at=994.0)
    # Snakemake's own 6 s, then 44 jobs of 13 s on one core.
    wall = 6 + 13 * len(jobs)
    shares = {"own": 10 * len(jobs), "process": 3 * len(jobs), "Snakemake": 6, "no": 0}
    assert f"Wall time {wall} s × 1, the most cores at once, in one run" in text
    assert f"Process start and Snakemake together: {100 * (wall - shares['own']) / wall:.1f} %" in text
    found = rows()
    by_kind = {name.split(":")[0].split()[0]: float(row["share"]) for name, row in found["core time"].items()}
    assert by_kind == {name: pytest.approx(seconds / wall, abs=1e-4) for name, seconds in shares.items()}
    assert sum(float(row["share"]) for row in found["core time"].values()) == pytest.approx(1, abs=4e-4)
    assert sum(float(row["share"]) for row in found["stage"].values()) == pytest.approx(1, abs=1e-3)
    # An attack is 12 of its 13 s long: the second of records is nobody's device time.
    attacks = sum(job.stage == "attack" for job in jobs)
    assert float(found["stage"]["attack"]["hours"]) == pytest.approx(12 * attacks / 3600, abs=1e-5)
    assert float(found["table"]["table1"]["hours"]) == pytest.approx(12 * len(jobs) / 3600, abs=1e-5)
    assert found["table"]["table1"]["device"] == CORE
    assert found["table"]["second_order"]["recorded"] == "3"
    # A run that adds nothing to them leaves the file alone.
    path = tmp_path / "results" / "demo" / "efficiency.csv"
    os.utime(path, (1.0, 1.0))
    assert efficiency.summarise(demo, run_started_at=994.0) == text
    assert path.stat().st_mtime == 1.0
    efficiency.summarise(demo, run_started_at=990.0)
    assert path.stat().st_mtime > 1.0


def test_partial_results(demo: Plan, tmp_path: Path):
    assert efficiency.summarise(demo, None) == "demo: no job has been recorded yet\n"
    assert not (tmp_path / "results").exists()
    finish(tmp_path, tables(demo)["table1"][:5])
    text = efficiency.summarise(demo, None)
    assert "5 of 7" in text
    assert "0 of 8" in text


def test_the_jobs_threads_are_devices_and_failed_attempts_count(demo: Plan, tmp_path: Path):
    (esd,) = (job for job in unite(tables(demo)) if (job.stage, job.label) == ("unlearn", "esd"))
    write_record(tmp_path, esd, threads=2, seconds=100.0, attempts=3)
    (record,) = read_job_records([esd.entry])
    # Three attempts' 100 s of work, of which the last 13 s hold 11 at most.
    assert (record.device_hours, record.own_seconds) == (2 * 102 / 3600, 11)


def test_a_job_waits_for_the_results_that_its_settings_name(demo: Plan, tmp_path: Path):
    jobs = tables(demo)["table1"]
    finish(tmp_path, jobs)
    found = {(r.stage, r.label): r for r in read_job_records(job.entry for job in jobs)}
    model = found["assets", "model"].ended_at
    assert found["unlearn", "esd"].inputs_at == max(model, found["assets", "data"].ended_at)
    assert found["attack", "esd.bold"].inputs_at == found["unlearn", "esd"].ended_at
    assert found["sample", "esd.bold"].inputs_at == found["attack", "esd.bold"].ended_at
    assert found["score", "esd.bold"].inputs_at == found["sample", "esd.bold"].ended_at
    assert found["assets", "autoencoder"].inputs_at is None


def test_the_end_of_a_run_never_fails(demo: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    jobs = tables(demo)["table1"]
    finish(tmp_path, jobs)
    efficiency.end_of_run(demo)
    assert "table1" in capsys.readouterr().err
    timing = tmp_path / jobs[0].folder / "timing.json"
    for damaged in ("{}", "no JSON", "[]"):
        timing.write_text(damaged)
        efficiency.end_of_run(demo)
        assert "no efficiency summary: " in capsys.readouterr().err


def test_the_command_is_quick_and_imports_no_torch(demo: Plan, tmp_path: Path):
    finish(tmp_path, tables(demo)["table1"])
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['efficiency', '--configfile', {str(CONFIG / 'demo.yaml')!r}, '--tier', 'smoke']\n"
        "runpy.run_module('resalign.accounting.efficiency', run_name='__main__')\n"
        "assert not {'torch', 'pandas', 'numpy'} & set(sys.modules)\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert "46 of 46" in finished.stdout


def test_snakemake_is_found_above_a_process(tmp_path: Path):
    code = "from resalign.accounting.efficiency import workflow_started_at as w; print(w())"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "None\n"
    (tmp_path / "snakemake").write_text(f"import subprocess, sys\nsubprocess.run({command!r}, check=True)\n")
    finished = subprocess.run([sys.executable, "snakemake"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert float(finished.stdout) > 1e9


def test_the_age_of_a_process_is_exact():
    began = time.time()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = created_at(psutil.Process(child.pid))
        ended = time.time()
        child.communicate(b"\n")
    assert began - 0.02 <= found <= ended  # a clock tick is .01 s
