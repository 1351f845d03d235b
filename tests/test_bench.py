"""The benchmarks' own bars; what takes minutes and much memory is asked for by `make test ARGS="-m large"`."""

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from resalign.config.experiment import Experiment
from resalign.config.plan import Plan

ROOT = Path(__file__).resolve().parents[1]
MOST_GIB = 18.0


def loaded(name: str) -> Any:
    """A benchmark as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "bench" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", sorted((ROOT / "bench").glob("*.py")), ids=lambda script: script.stem)
def test_every_benchmark_has_help(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [script.name, "--help"])
    with pytest.raises(SystemExit) as ended:
        loaded(script.stem).main()
    assert ended.value.code == 0


def test_the_jobs_at_stable_diffusions_size_are_planned(tmp_path: Path) -> None:
    bench = loaded("sd_v1_4_size")
    chosen = argparse.Namespace(
        device="cpu", threads=1, gradient_checkpointing=False, published=False, outer_steps=1, attack_steps=1, pixels=64
    )
    chosen.trained = ["lora"]
    plan = Plan(Experiment(bench.experiment(tmp_path, "float32", chosen), where="bench"))
    found = {script: json.loads(job) for _, script, job, _, _ in bench.jobs_of(plan, bench.STAGES)}
    assert [*found] == bench.STAGES
    assert found["score"]["images"].endswith("smoke/images.csv")


@pytest.mark.large
def test_one_step_of_everything_at_stable_diffusions_size(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "bench/sd_v1_4_size.py", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2000:]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in ended.stdout.splitlines()[2:]]
    assert [row[0].split()[0] for row in rows] == ["resalign-lora", "resalign-lora.full", "sample", "score"]
    for row in rows:
        assert 0 < float(row[6]) <= MOST_GIB, row
