"""About what an experiment takes: sums without the unknown, each with its device and source."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from resalign.accounting.costs import RATES, Rate, Work, describe, planned_work, read_rates
from resalign.config.plan import Plan, load_plan

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config"
GPU = Rate(3.0, 6.0, 500e6, "GPU X", "dev/LOG.md")


def demo(**overrides: Any) -> Plan:
    return load_plan(CONFIG / "demo.yaml", {"tier": "smoke", **overrides})


def work_of(plan: Plan) -> dict[tuple[str, str], Work]:
    return {(work.stage, work.member): work for work in planned_work(plan)}


def test_the_papers_jobs() -> None:
    found = {key: (work.jobs, work.units) for key, work in work_of(load_plan(CONFIG / "config.yaml")).items()}
    assert found == {
        ("unlearn", "esd"): (3, 3000),
        ("unlearn", "safegen"): (3, 3000),
        ("unlearn", "advunlearn"): (3, 3000),
        ("unlearn", "lcfdsd"): (6, 12000),
        ("unlearn", "resalign"): (3, 360),
        ("attack", "full"): (42, 8400),
        ("sample", "images"): (61, 61 * 13393),
        ("score", "images"): (61, 61 * 13393),
    }


def test_units_of_the_demo() -> None:
    found = work_of(demo())
    # 6 + 6 + 162 images of each of 4 models; each of 8 attacks has 6 unsafe images of 2 more states.
    assert found["sample", "images"].units == 4 * 174 + 8 * 186
    assert found["sample", "images"].image_bytes == found["sample", "images"].units * 32 * 32 * 3
    assert (found["attack", "full"].jobs, found["attack", "full"].states) == (8, 8 * 3)
    search = {"attack": "worst_case", "harmful": "digits-data/harmful/train", "learning_rates": [1e-4, 1e-3]}
    data = {"train": "digits-data/pages/train", "heldout": "digits-data/pages/heldout", "steps": 100}
    worst = work_of(demo(attacks={"worst": {**search, **data}}))["attack", "worst_case"]
    assert worst.units == 4 * 200, "a search takes the steps of all its candidates"


@pytest.mark.parametrize(
    ("units", "rate", "hours"),
    [(1200, GPU, (2 * 6 + 1200 * 3) / 3600), (None, GPU, None), (1200, Rate(size_bytes=1.0), None)],
)
def test_hours(units: int | None, rate: Rate, hours: float | None) -> None:
    assert Work("attack", "full", 2, units).hours(rate) == hours


def test_a_size_that_is_not_known_is_no_zero() -> None:
    assert Work("attack", "full", 2, 10, states=3, image_bytes=7).size_bytes(GPU) == 7 + 3 * 500e6
    assert Work("attack", "full", 2, 10, states=3, image_bytes=7).size_bytes(Rate()) is None
    assert Work("sample", "images", 2, 10, image_bytes=7).size_bytes(Rate()) == 7


def test_what_was_never_measured_enters_no_sum() -> None:
    text = describe(demo(), {("attack", "full"): GPU, ("unlearn", "*"): Rate(size_bytes=2e9)})
    # 8 × (6 + 200 × 3) s; 24 states of 500 MB, 3 models of 2 GB; 42 jobs in all.
    assert text.startswith("demo, tier smoke: at least 1.3 h of one GPU X; not measured: assets autoencoder, ")
    head = text.splitlines()[0]
    assert "score images; at most 18.0 GB without assets autoencoder, " in head
    assert "unlearn" not in head.partition(" without ")[2]
    assert [line.split()[-2:] for line in text.splitlines() if line.startswith("assets model")] == [["not", "known"]]
    assert "  attack full: GPU X, dev/LOG.md" in text
    assert sum("not measured" in line for line in text.splitlines()[1:]) == len(planned_work(demo())) - 1
    assert "hours unknown" in describe(demo(), {})


def test_devices_are_never_added_up() -> None:
    text = describe(demo(), {("attack", "full"): GPU, ("sample", "images"): Rate(1.0, device="core")})
    assert "at least 1.3 h of one GPU X, at least 0.6 h of one core" in text


def test_the_committed_rates_name_device_and_source() -> None:
    with (ROOT / RATES).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["model"] for row in rows} == {"sd-v1-4", "digits-model"}
    for row in rows:
        assert bool(row["seconds"]) == bool(row["device"]) == row["source"].startswith("dev/LOG.md "), row
    assert len(read_rates(ROOT / RATES, "digits-model")) == sum(row["model"] == "digits-model" for row in rows)


@pytest.mark.parametrize(
    "content", ["stage,labels\na,b\n", "model,stage,member,seconds\nm,a,b,c\n", "model,stage\nm\n"]
)
def test_a_table_of_something_else_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "rates.csv").write_text(content.replace("stage,labels\na", "model,labels\nm"))
    with pytest.raises(ValueError, match="is no table of rates"):
        read_rates(tmp_path / "rates.csv", "m")


@pytest.mark.parametrize(
    ("arguments", "device"),
    [((), "H100 80GB"), (("--configfile", "config/demo.yaml"), "x86_64 core (1 of 2)")],
)
def test_the_command_is_quick_and_imports_no_torch(arguments: tuple[str, ...], device: str) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = {['costs', *arguments]}\n"
        "runpy.run_module('resalign.accounting.costs', run_name='__main__')\n"
        "assert not {'torch', 'pandas', 'numpy'} & set(sys.modules)\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert f"h of one {device}" in finished.stdout
