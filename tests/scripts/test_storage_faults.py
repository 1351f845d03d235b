"""Stages whose results cannot be written: one clear error, and nothing lost."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from resalign.config.plan import Plan
from resalign.jobs.unlearn import UnlearnJob

from .conftest import Workshop
from .stage_process import StageProcess

pytestmark = pytest.mark.slow

EVERY_STEP = {"SAVE_INTERVAL_SECONDS": 0.0}


@dataclass
class Disk:
    """A small file system of its own, which can be filled and made read-only."""

    folder: Path

    def fill(self, free_bytes: int) -> None:
        """Leaves no more than so many bytes."""
        found = os.statvfs(self.folder)
        (self.folder / "filler").write_bytes(bytes(found.f_bavail * found.f_frsize - free_bytes))

    def empty(self) -> None:
        """Takes the filler away."""
        (self.folder / "filler").unlink()

    def remount(self, options: str) -> None:
        """Such as ``ro``."""
        subprocess.run(["mount", "-o", f"remount,{options}", self.folder], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="module")
def plan(tiny_plan: Callable[..., Plan]) -> Plan:
    return tiny_plan(unlearning={"graddiff": {"steps": 60, "lr": 1e-4}})


@dataclass
class Job:
    """The plan's unlearning job, in folders of the test's choice."""

    arguments: list[str]
    output: str
    expected: dict[str, bytes]

    def at(self, folder: Path, log: Path) -> StageProcess:
        """The job in that working directory."""
        return StageProcess(self.arguments, folder, log, EVERY_STEP)

    def results(self, folder: Path) -> dict[str, bytes]:
        """What it has written there, but for its times."""
        files = [path for path in (folder / self.output).iterdir() if path.name not in ("timing.json", "hashes.json")]
        return {path.name: path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def job(plan: Plan, workshop: Callable[[], Workshop]) -> Job:
    """The job, with the results of a run that nothing disturbs."""
    [stage] = plan.unlearn.values()
    arguments = ["scripts/unlearn.py", "--job", UnlearnJob.of(plan, stage).text(), "--output", stage.folder(0)]
    made = Job([*arguments, "--modules", *stage.modules], stage.folder(0), {})
    folder = workshop().folder
    process = made.at(folder, folder / "undisturbed")
    assert process.finish() == 0, process.log
    return Job(made.arguments, made.output, made.results(folder))


def only_error(process: StageProcess) -> str:
    """The one error line of a log that has no traceback."""
    assert "Traceback" not in process.log, process.log
    [line] = [line for line in process.log.splitlines() if line.startswith("error:")]
    return line


def test_a_full_disk(job: Job, disk: Disk, tmp_path: Path) -> None:
    process = job.at(disk.folder, tmp_path / "log")
    process.interrupt(signal.SIGTERM, 30)
    begun, saved = process.steps, list(disk.folder.rglob("*.pt"))
    assert len(saved) == 1
    disk.fill(saved[0].stat().st_size // 2)
    assert process.finish() == 1
    error = only_error(process)
    assert "the state cannot be saved (No space left on device); the one before is kept; free some space" in error
    assert list(disk.folder.rglob("*.pt")) == saved
    disk.empty()
    assert process.finish() == 0, process.log
    assert job.results(disk.folder) == job.expected
    assert begun < process.steps <= 61  # the step that could not be saved is repeated


def test_a_read_only_results_folder(job: Job, disk: Disk, tmp_path: Path) -> None:
    process = job.at(disk.folder, tmp_path / "log")
    process.interrupt(signal.SIGTERM, 30)
    begun = process.steps
    disk.remount("ro")
    assert process.finish() == 1
    assert "cannot be written (Read-only file system); results must be writable" in only_error(process)
    disk.remount("rw")
    assert process.finish() == 0, process.log
    assert job.results(disk.folder) == job.expected
    assert begun < process.steps == 60
