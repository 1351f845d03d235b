"""Records of finished jobs, as device hours."""

import json
from pathlib import Path
from typing import Any

import pytest

from resalign.accounting.job_records import read_job_records
from resalign.accounting.times import Timings, device_hours, section
from tests.analysis.experiment import make_swept

from .records import record

TIMING = {"seconds": 100.0, "start_seconds": 2.0, "attempts": 3, "threads": 2, "peak_memory_mb": 100.0}
TIMING |= {"machine": "x86_64", "cpus": 4}


def write(folder: Path, timing: Any) -> tuple[str, str, int, str]:
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    (folder / "timing.json").write_text(json.dumps(timing))
    return "unlearn", "esd", 0, str(folder)


@pytest.mark.parametrize(("device", "name", "devices"), [("cpu", "x86_64 core (1 of 4)", 2), ("GPU X", "GPU X", 1)])
def test_cores_are_devices_and_a_gpu_is_one(device: str, name: str, devices: int, tmp_path: Path) -> None:
    job = write(tmp_path / "job", {**TIMING, "device": device})
    [found] = read_job_records([job, ("unlearn", "esd", 1, str(tmp_path / "not there"))])
    assert (found.device, found.devices) == (name, devices)
    assert found.device_hours == devices * 102 / 3600


@pytest.mark.parametrize("damaged", [{}, []])
def test_a_damaged_record_is_an_error(damaged: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="delete it to have the job run again"):
        read_job_records([write(tmp_path / "job", damaged)])


def test_devices_are_never_added_up() -> None:
    records = record(3600, 0), record(1800, 1800, threads=2), record(7200, 0, device="GPU X", on_gpu=True, threads=8)
    assert device_hours(records) == {"GPU X": 2, "core": 3}
    shown = section(Timings(records), make_swept())
    assert shown.notes == ["The results behind the tables took 2.00 hours of one GPU X and 3.00 hours of one core."]
    (note,) = section(Timings((record(3600, 0, device="x86_64 core (1 of 4)"),)), make_swept()).notes
    assert note.endswith(" 1.00 hours of one x86_64 core (the machine has 4).")
    assert [(row.device, row.jobs, row.held) for row in shown.hardware] == [("GPU X", 1, "1"), ("core", 2, "1–2")]
    with pytest.raises(ValueError, match="no job's time was recorded"):
        section(Timings(()), make_swept())
