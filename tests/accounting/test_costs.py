"""What an experiment will cost: which rate holds for which job, rates from records, and sums without the unknown."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from resalign.accounting import costs
from resalign.accounting.costs import cost_of, describe, disk
from resalign.accounting.measured_rates import measure_rates
from resalign.accounting.planned_jobs import PlannedJob, tables, unite
from resalign.accounting.rates import Rate, newest, read_rates, work_of, write_rates
from resalign.config.plan import Plan, load_plan

from .records import size_of, write_record

CONFIG = Path(__file__).resolve().parents[2] / "config"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No result of this checkout is seen."""
    monkeypatch.chdir(tmp_path)


def demo(**overrides: object) -> Plan:
    return load_plan(CONFIG / "demo.yaml", {"tier": "smoke", **overrides})


def jobs_of(plan: Plan, stage: str, label: str = "") -> list[PlannedJob]:
    return [job for job in unite(tables(plan)) if job.stage == stage and job.label.startswith(label)]


def rate_of(job: PlannedJob, **changes: object) -> Rate:
    values = {"device_seconds": 3.0, "start_device_seconds": 6.0, "bytes": 500.0, "jobs": 1}
    origin = {"device": "core", "date": "2026-11-25", "source": "dev/LOG.md"}
    return Rate(**{**dataclasses.asdict(work_of(job)), **values, **origin, **changes})  # type: ignore[arg-type]


# --- which rate holds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        ({"lr": 1.0e-5}, True),
        ({"steps": 7}, True),  # the unit
        ({"gamma": 0.7}, True),
        ({"simulation": {"lr": [1.0e-3, 2.0e-3]}}, True),
        ({"beta": 0.0}, False),  # no simulated fine-tuning at all
        ({"simulation": {"steps": [5, 20]}}, False),
        ({"solver": {"name": "richardson", "steps": 2}}, False),
        ({"solver": "minres"}, False),
        ({"draws": 7}, False),
        ({"batch_size": 3}, False),
    ],
)
def test_a_rate_holds_for_equal_work(change: dict[str, Any], is_same: bool):
    (before,) = jobs_of(demo(), "unlearn", "resalign")
    own = demo().experiment.config.unlearning["resalign"]
    merged = {**own, **change, "simulation": {**own["simulation"], **change.get("simulation", {})}}
    (after,) = jobs_of(demo(unlearning={"resalign": merged}), "unlearn", "resalign")
    assert (work_of(after) == work_of(before)) is is_same


def test_nothing_is_carried_over_to_another_machine_model_or_number_of_threads():
    (job,) = jobs_of(demo(), "unlearn", "esd")
    others = [
        dataclasses.replace(job, threads=2),
        dataclasses.replace(job, job={**job.job, "device": "cuda"}),
        dataclasses.replace(job, model="results/assets/another-model"),
    ]
    assert work_of(job) not in {work_of(other) for other in others}
    on_gpu = dataclasses.replace(others[1], threads=8)  # a GPU's seconds are no threads'
    assert work_of(on_gpu) == work_of(others[1])


def test_the_newest_rate_holds():
    (job,) = jobs_of(demo(), "unlearn", "esd")
    old, new = rate_of(job, date="2026-01-02", device="a"), rate_of(job, date="2026-11-25", device="b")
    assert newest([new, old]) == newest([old, new]) == {work_of(job): new}


def test_rates_are_written_as_they_are_read(tmp_path: Path):
    (job,) = jobs_of(demo(), "unlearn", "esd")
    old, new, other = rate_of(job), rate_of(job, device_seconds=4.5), rate_of(job, device="another, named so")
    write_rates(tmp_path / "rates.csv", [old, other, new])
    assert read_rates(tmp_path / "rates.csv") == [other, new]
    (tmp_path / "rates.csv").write_text("stage,labels\n")
    with pytest.raises(ValueError, match="rates.csv: columns"):
        read_rates(tmp_path / "rates.csv")


def test_the_committed_rates_can_be_read_and_name_their_source():
    found = read_rates(CONFIG / "rates.csv")
    assert found
    for rate in found:
        assert rate.date, rate
        assert rate.source.split()[0] in ("dev/LOG.md", "docs/"), rate
        assert (CONFIG.parent / rate.source.split()[0]).exists(), rate


# --- sums -------------------------------------------------------------------------------------------------------------


def test_what_was_never_measured_enters_no_sum():
    attacks = jobs_of(demo(), "attack")
    (esd,) = jobs_of(demo(), "unlearn", "esd")
    known = newest([rate_of(attacks[0])])
    found = cost_of([*attacks, esd], known)
    # 8 attacks of 200 steps: 8 × (6 + 200 × 3) seconds; ESD has no rate.
    assert (found.jobs, found.unknown, found.done) == (9, 1, 0)
    assert found.hours == {"core": pytest.approx(8 * (6 + 200 * 3) / 3600)}
    assert found.size_bytes == 8 * 500
    alone = cost_of([esd], known)
    assert (alone.jobs, alone.unknown, alone.hours, alone.size_bytes) == (1, 1, {}, 0)


def test_images_are_counted_in_hours_and_bytes():
    (base,) = (job for job in jobs_of(demo(), "sample") if job.label == "base")
    found = cost_of([base], newest([rate_of(base)]))
    assert found.hours["core"] == pytest.approx((6 + 174 * 3) / 3600)
    assert found.size_bytes == 174 * 500
    assert cost_of([dataclasses.replace(base, units=None)], newest([rate_of(base)])).unknown == 1


def test_devices_are_never_added_up():
    (attack, *_), (esd,) = jobs_of(demo(), "attack"), jobs_of(demo(), "unlearn", "esd")
    rates = newest([rate_of(attack, device="GPU X"), rate_of(esd, device="core")])
    assert set(cost_of([attack, esd], rates).hours) == {"GPU X", "core"}
    text = describe(demo(), rates)
    assert "hours of GPU X" in text
    assert "hours of core" in text


def test_the_answer_says_what_is_unknown():
    plan = demo()
    text = describe(plan, {})
    assert "device hours and disk unknown; 47 of 47 jobs are unknown and in no sum" in text
    (esd,) = jobs_of(plan, "unlearn", "esd")
    text = describe(plan, newest([rate_of(esd)]))
    # (6 + 100 × 3) s; one kind of work is known, so that every sum with others in it is a lower bound.
    assert "≥ 0.09 h of core, ≥ 0.5 kB; 46 of 47 jobs are unknown and in no sum" in text
    sums = text[: text.index("Never measured:")].splitlines()
    lines = {line.split()[0]: line.split() for line in sums if line and line[0] != " "}
    assert lines["table1"][1:] == ["46", "0", "≥", "0.085", "≥", "0.5", "kB", "45"]
    assert lines["second_order"][1:] == ["4", "0", "unknown", "unknown", "4"]
    missing = text[text.index("Never measured:") :]
    assert work_of(esd).work not in missing
    assert all(work_of(job).work in missing for job in jobs_of(plan, "attack"))


@pytest.mark.parametrize(("size", "text"), [(0, "0.0 kB"), (1500, "1.5 kB"), (2.5e9, "2.5 GB"), (3e12, "3.0 TB")])
def test_disk(size: float, text: str):
    assert disk(size) == text


# --- rates from records -----------------------------------------------------------------------------------------------


def test_rates_are_medians_of_records(tmp_path: Path):
    attacks = jobs_of(demo(), "attack")[:3]
    for job, seconds in zip(attacks, (20.0, 30.0, 100.0), strict=True):
        write_record(tmp_path, job, seconds=seconds, start_seconds=seconds / 10, ended_at=1795568018.0)
    (rate,) = measure_rates(attacks, "dev/LOG.md")
    # 200 steps each: the median job took 30 s, and 3 s to start.
    assert (rate.device_seconds, rate.start_device_seconds, rate.jobs) == (30 / 200, 3.0, 3)
    assert (rate.unit, rate.device, rate.date, rate.source) == (
        "step",
        "x86_64 core (1 of 2)",
        "2026-11-25",
        "dev/LOG.md",
    )
    assert rate.bytes == sorted(size_of(tmp_path, job) for job in attacks)[1]
    assert rate.of == work_of(attacks[0])


def test_cores_are_devices_and_a_gpu_is_one(tmp_path: Path):
    (esd,) = jobs_of(demo(), "unlearn", "esd")
    four = dataclasses.replace(esd, threads=4)
    write_record(tmp_path, four, seconds=50.0, start_seconds=2.0)
    (rate,) = measure_rates([four], "")
    assert (rate.device_seconds, rate.start_device_seconds) == (4 * 50 / 100, 4 * 2)
    on_gpu = dataclasses.replace(four, job={**esd.job, "device": "cuda"})
    write_record(tmp_path, on_gpu, seconds=50.0, start_seconds=2.0, device="GPU X")
    (rate,) = measure_rates([on_gpu], "")
    assert (rate.device, rate.device_seconds, rate.start_device_seconds) == ("GPU X", 50 / 100, 2)
    write_record(tmp_path, on_gpu, device="cpu")  # for want of a GPU: no GPU's rate
    assert measure_rates([on_gpu], "") == []


def test_a_rate_gives_back_what_was_measured(tmp_path: Path):
    samples = jobs_of(demo(), "sample", "base")
    for job in samples:
        write_record(tmp_path, job, seconds=0.5 * (job.units or 0))
    found = cost_of(samples, newest(measure_rates(samples, "")))
    assert found.done == found.jobs
    assert found.hours["x86_64 core (1 of 2)"] * 3600 == pytest.approx(sum(0.5 * (j.units or 0) + 2 for j in samples))
    assert found.size_bytes == pytest.approx(sum(size_of(tmp_path, job) for job in samples), rel=0.01)


def test_a_larger_tier_that_found_images_is_no_measurement(tmp_path: Path):
    (small,) = (job for job in jobs_of(demo(), "sample") if job.label == "base")
    (large,) = (job for job in jobs_of(demo(tier="small"), "sample") if job.label == "base")
    write_record(tmp_path, large)
    for image in tmp_path.glob("results/runs/sample/*/seed-*/images/*.png"):
        os.utime(image, (1500, 1500))
    write_record(tmp_path, small, started_at=1000.0)
    assert len(measure_rates([small], "")) == 1
    [rate] = measure_rates([small, large], "")
    write_record(tmp_path, large, started_at=2000.0)
    for image in sorted(tmp_path.glob("results/runs/sample/*/seed-*/images/*.png"))[:1]:
        os.utime(image, (1500, 1500))
    assert rate.jobs == 2
    assert [rate.jobs for rate in measure_rates([small, large], "")] == [1]
    write_record(tmp_path, small, started_at=1000.0, attempts=2)
    assert measure_rates([small], "") == []


# --- the command ------------------------------------------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    arguments = ["--configfile", str(CONFIG / "demo.yaml"), "--tier", "smoke", "--rates", "rates.csv", *options]
    monkeypatch.setattr(sys, "argv", ["costs", *arguments])
    costs.main()


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for job in jobs_of(demo(), "attack"):
        write_record(tmp_path, job)
    run(monkeypatch, "--measure", "dev/LOG.md 2026-11-25")
    assert capsys.readouterr().out == "rates of demo written to rates.csv: 1\n"
    before = (tmp_path / "rates.csv").read_bytes()
    run(monkeypatch, "--measure", "dev/LOG.md 2026-11-25")
    assert (tmp_path / "rates.csv").read_bytes() == before
    run(monkeypatch)
    # 8 × 12 s
    assert "0.03 h of x86_64 core (1 of 2)" in capsys.readouterr().out
    (tmp_path / "rates.csv").write_text("nothing\n")
    with pytest.raises(SystemExit, match="error: rates.csv: columns"):
        run(monkeypatch)
