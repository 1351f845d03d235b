"""Results that are copied from one working copy into another."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Checkout, copy_repository


def adopted(checkout: Checkout, target: str) -> list[str]:
    command = checkout.command()
    arguments = ["scripts/adopt.py", "--configfile", checkout.config, "--config", "tier=smoke", "--", target]
    command["args"] = [sys.executable, *arguments]
    ended = subprocess.run(capture_output=True, **command)
    assert ended.returncode == 0, ended.stderr
    return str(ended.stdout).splitlines()


@pytest.mark.slow
def test_results_of_the_same_source_are_taken_over_and_no_others(tmp_path: Path) -> None:
    first = Checkout(copy_repository(tmp_path / "first"))
    assert first.snakemake("--", "overlap").returncode == 0
    second = Checkout(copy_repository(tmp_path / "second"))
    shutil.copytree(first.folder / "results", second.folder / "results")
    for file in (*second.folder.glob("src/**/*.py"), *second.folder.glob("scripts/*.py")):
        os.utime(file)  # as a fresh clone has them
    planned = second.snakemake("--dry-run", "--", "overlap").stdout
    assert "Updated input files" in planned
    overlap = second.folder / "src" / "resalign" / "data" / "overlap.py"
    before = overlap.read_text()
    overlap.write_text(f"{before}\n# another revision\n")
    said, left = adopted(second, "overlap")
    assert said == "1 of 2 jobs are taken over"
    assert left.startswith("1 are made again: results/overlap/"), left
    assert left.endswith("/overlap.json is of another source_sha256")
    overlap.write_text(before)
    assert adopted(second, "overlap") == ["1 of 1 jobs are taken over"]
    assert "Nothing to be done" in second.snakemake("--dry-run", "--", "overlap").stdout
