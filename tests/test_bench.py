"""The benchmarks' own bars; what takes minutes and much memory is asked for by `make test ARGS="-m large"`."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST_GIB = 18.0


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
