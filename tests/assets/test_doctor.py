"""What a plan says of a machine without the GPU that it asks for."""

from pathlib import Path

import pytest

from resalign.assets.doctor import gpu_line
from resalign.config.plan import load_plan
from resalign.running import devices

ROOT = Path(__file__).resolve().parents[2]


def test_a_missing_gpu_is_said_where_a_stage_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv(devices.VISIBLE, "")
    asks = {"unlearn": {"device": "cuda"}, "score": {"device": "cuda"}}
    line = gpu_line(load_plan("config/demo.yaml", {"resources": asks}))
    assert line is not None
    assert line.startswith("no GPU is visible (CUDA_VISIBLE_DEVICES is ''), and one is asked for by unlearn, score")
    assert gpu_line(load_plan("config/demo.yaml", {"resources": {"unlearn": {"device": "auto", "gpu": 1}}})) is None
    assert gpu_line(load_plan("config/demo.yaml")) is None


def test_a_driver_that_fails_does_not_break_the_plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'Driver/library version mismatch'; exit 18\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    line = gpu_line(load_plan("config/demo.yaml", {"resources": {"unlearn": {"device": "cuda"}}}))
    assert (
        line
        == "nvidia-smi -L failed (Driver/library version mismatch); repair the driver, or set the stage's device: cpu"
    )
