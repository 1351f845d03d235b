"""The benchmarks' own bars; what takes minutes and much memory is asked for by `make test ARGS="-m large"`."""

import argparse
import csv
import importlib.util
import json
import math
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from resalign.accounting.rates import read_rates
from resalign.analysis.frames import interval_method
from resalign.config import registry
from resalign.config.experiment import Experiment
from resalign.config.plan import Plan, load_plan
from resalign.config.report import ReportConfig
from resalign.running.stage_server import stage_server
from tests.pipelines import PIXELS, write_pipeline
from tests.scripts.conftest import settings_put_back

ROOT = Path(__file__).resolve().parents[1]
MOST_GIB = 18.0


def loaded(name: str) -> Any:
    """A benchmark as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "bench" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", sorted((ROOT / "bench").glob("*.py")), ids=lambda script: script.stem)
def test_every_benchmark_has_help(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [script.name, "--help"])
    with pytest.raises(SystemExit) as ended:
        loaded(script.stem).main()
    assert ended.value.code == 0


@pytest.mark.slow
def test_what_is_timed_beside_plain_code_is_the_same_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--pairs", "1", "--inner-steps", "2", "--images", "4"]
    monkeypatch.setattr(sys, "argv", ["speed.py", str(tmp_path), *options])
    speed = loaded("speed")
    with settings_put_back():
        speed.main()
    report = json.loads((tmp_path / "speed.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows) == list(speed.CONTENDERS)
    for name, row in rows.items():
        assert row["least"] <= row["ratio"] <= row["most"], name
        # 1.4e-6 is a cosine of 1 - 1e-12; another batch of prompts may turn single pixels by 1 of 255.
        assert row["difference"] <= (0.01 if name in ("sampling", "outer step, finite_difference") else 1.4e-6), name
    switches = {switch["name"]: switch["off"] for switch in report["switches"]}
    same = {name: off for name, off in switches.items() if name not in ("finite_difference", "plain attention")}
    assert {name for name, off in same.items() if abs(off) < 1e-13} == set(same)
    assert {"nothing recorded", "memory filled", "algorithms of any order", "residual: before"} < set(same)
    assert 0 < switches["finite_difference"] < 1e-4


def test_a_step_is_counted_and_a_cuda_graph_is_one_launch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = loaded("counts")
    shape = {"block_out_channels": (32,), "layers_per_block": 1, "cross_attention_dim": 768, "attention_head_dim": 8}
    blocks = {"down_block_types": ["CrossAttnDownBlock2D"], "up_block_types": ["CrossAttnUpBlock2D"]}
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(sample_size=64, **shape, **blocks).requires_grad_(False)
    found = {}
    for options in ([], ["--cuda-graphs"]):
        monkeypatch.setattr(sys, "argv", ["counts.py", *options])
        monkeypatch.setattr(diffusers, "UNet2DConditionModel", lambda **_: unet)
        counts.main()
        *drawn, operations, launches, passes, _, _ = capsys.readouterr().out.splitlines()
        found[bool(options)] = [int(line.split()[-1].replace(",", "")) for line in (operations, launches, passes)]
    steps = [int(re.findall(r"(\d+) steps", line)[0]) * (1 + ("prior" in line)) for line in drawn]
    # Each draw's steps, its loss after them, and one graph for all products: none is made again.
    graphs = sum(1 + ("prior" in line) for line in drawn)
    assert found[True][2] == found[False][2] == sum(steps) + len(drawn) + graphs
    assert found[True][1] < found[False][1] / 10
    assert found[False][1] < found[False][0]


def test_the_derivative_through_every_step_is_of_the_loss_after_fine_tuning(
    pipeline_folder: Path, image_folder: Path
) -> None:
    bench = loaded("through_steps")
    draw = {"steps": [10], "lr": [0.2], "optimizer": ["sgd"], "adaptation": ["full"], "loss": ["denoising"]}
    method = {"name": "resalign", "lr": 1e-4, "through": "steps", "simulation": draw, "batch_size": 2}
    settings = registry.configured("unlearning", method, where="test")[1]
    folders = dict.fromkeys(("forget", "retain", "pool"), str(image_folder))
    world = bench.World({"model": str(pipeline_folder), "pixels": PIXELS, **folders}, settings)
    steps, *rises, cosine = map(float, world.measured(world.original, 0).split(" | "))
    assert steps == 10
    # Measured: +.0126 and +.0047. So long a fine-tuning turns the slope, which first order does not see.
    assert rises[0] > 2 * rises[1] > 0
    assert cosine > 0.99


@pytest.mark.parametrize(
    ("design", "rates"), [((2, 24, 5), [0.5]), ((3, 200, 3), [0.4, 0.1])], ids=["rate, two seeds", "difference, three"]
)
def test_the_default_interval_covers_where_few_seeds_differ_and_the_bootstrap_does_not(
    design: tuple[int, int, int], rates: list[float]
) -> None:
    """Two cells of docs/intervals.md: not below 95 % by more than 2.6 standard errors of so many trials."""
    bench, trials = loaded("interval_coverage"), 400
    models = tuple(bench.Model(rate, spread=2.0) for rate in rates)
    methods = [interval_method(ReportConfig(interval=kind, replicates=200)) for kind in ("two_way_t", "bootstrap")]
    shares, widths = bench.measured(design, models, methods, trials, seed=1)
    assert shares[0] > 0.95 - 2.6 * math.sqrt(0.95 * 0.05 / trials)
    assert shares[1] < 0.85
    assert widths[1] < widths[0]


def cells(stdout: str) -> list[list[str]]:
    """The printed table's rows below its head."""
    lines = [line for line in stdout.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def test_on_a_gpu_the_papers_settings_are_measured(tmp_path: Path) -> None:
    bench, paper = loaded("sd_v1_4_size"), load_plan(ROOT / "config" / "config.yaml").experiment
    chosen = {"device": "cuda", "pixels": 512, "precision": "float32", "gradient_checkpointing": False, "threads": 1}
    chosen |= {"rows": ["resalign", "resalign-full"], "outer_steps": 2, "attack_steps": 3}
    plan = Plan(Experiment(bench.experiment(tmp_path, argparse.Namespace(**chosen)), where="bench"))
    jobs = bench.measured(plan, bench.STAGES)
    assert [job.stage for job in jobs] == [*bench.STAGES, "unlearn"]
    sample, score, attack, *rows = [json.loads(job.text) for job in jobs]
    for row in rows:
        assert row["method"] == {**paper.unlearning[row["label"]].resolved(), "steps": 2}
    assert attack["attack"] == {**paper.attacks["dreambench"].resolved(), "steps": 3}
    assert sample["sampling"] == paper.config.sampling.model_dump()
    assert score["images"].endswith("smoke/images.csv")


@pytest.mark.slow
def test_the_gpus_command_on_a_tiny_pipeline(tmp_path: Path) -> None:
    write_pipeline("stable_diffusion", tmp_path / "pipeline")
    options = ["--device", "cpu", "--pixels", str(PIXELS), "--threads", "1"]
    with stage_server() as environment:
        path = f"{Path(sys.executable).parent}:{environment['PATH']}"
        ended = subprocess.run(
            ["sh", str(ROOT / "bench" / "gpu.sh"), str(tmp_path), *options],
            env={**environment, "PATH": path},
            capture_output=True,
            text=True,
        )
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2000:]
    rows = cells(ended.stdout)
    assert [row[:2] for row in rows] == [["sample", "1"], ["resalign", "2"], ["resalign-full", "2"]]
    [shard] = tmp_path.rglob("images/few/**/*.zip")
    assert len(zipfile.ZipFile(shard).namelist()) == 16
    with (tmp_path / "rates.csv").open(newline="") as file:
        rates = list(csv.DictReader(file))
    for row, rate in zip(rows, rates, strict=True):
        seconds = float(row[3]) if row[3] != "–" else float(row[2]) / 16
        # Both are rounded: one to three digits, the other to two decimals.
        assert float(rate["seconds"]) == pytest.approx(seconds, abs=0.005 * seconds + 0.006)
    assert read_rates(tmp_path / "rates.csv", "sd-v1-4")["sample", "webp images"].size_bytes
    # What a row is said to have drawn is what its history has.
    histories = [path for path in sorted(tmp_path.rglob("history.csv")) if "resalign" in str(path)]
    assert len(histories) == 2
    for history in histories:
        with history.open(newline="") as file:
            logged = [row for row in csv.DictReader(file) if (row["step"], row["quantity"]) == ("1", "inner_steps")]
        drawn = [f"{row['value']} steps" for row in logged]
        assert any(re.findall(r"\d+ steps", rate["source"]) == drawn for rate in rates)


def test_the_time_that_a_gpu_is_lent_is_not_overdrawn(tmp_path: Path) -> None:
    bench = loaded("sd_v1_4_size")
    job = bench.Measured("unlearn", "resalign", "resalign", "{}", "results/runs/unlearn/resalign/seed-0")
    assert bench.run(job, tmp_path, 1, time.monotonic()) == "not begun: no time was left"
    assert bench.run(job, tmp_path, 1, time.monotonic() + 0.01).startswith("cut off")


@pytest.mark.large
def test_one_step_of_everything_at_stable_diffusions_size(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "bench/sd_v1_4_size.py", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2000:]
    rows = cells(ended.stdout)
    assert [row[0] for row in rows] == ["sample", "score", "attack", "resalign"]
    for row in rows:
        assert 0 < float(row[6]) <= MOST_GIB, row
