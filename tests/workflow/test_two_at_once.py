"""Two main processes in one checkout, the first one without an activated environment."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import Checkout, copy_repository

pytestmark = pytest.mark.slow

TARGET = "digits_data"


@pytest.fixture
def fresh(tmp_path: Path) -> Checkout:
    return Checkout(copy_repository(tmp_path / "repository"))


def test_the_second_one_is_refused_and_the_first_one_ends_well(fresh: Checkout) -> None:
    command = fresh.command("--", TARGET)
    # As `.venv/bin/snakemake` starts from a plain shell: no `python` of the project is on PATH.
    command["args"] = [Path(sys.executable).parent / "snakemake", *command["args"][3:]]
    command["env"] = {"PATH": "/usr/bin:/bin", "PYTHONPATH": command["env"]["PYTHONPATH"]}
    first = subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    locks = fresh.folder / ".snakemake" / "locks"
    while first.poll() is None and not any(path.stat().st_size for path in locks.glob("*.output.lock")):
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # so that it does not end before the second one has asked
    second = fresh.snakemake("--", TARGET)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 1
    assert second.stderr.count("Error: Directory cannot be locked") == 1, second.stderr
    assert "Traceback" not in second.stderr
    output, _ = first.communicate()
    assert first.returncode == 0, output
    [made] = (fresh.folder / "results" / "assets").iterdir()
    assert (made / "run.json").is_file()
    # What was kept for the case that the main process is killed is not needed any more.
    kept = {path.name for path in (fresh.folder / "results" / ".state").rglob("*") if path.is_file()}
    assert kept == {"lock"}
