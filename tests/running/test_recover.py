"""What a killed workflow leaves: its jobs are ended and nobody else's; a live workflow is not touched."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from resalign.running.recover import AliveError, recover

PATIENCE_SECONDS = 300  # of a busy machine; nothing waits for as long as that
RUN_ID = "1d0c5f0e-8f0f-4f0e-9b9b-0123456789ab"
# A stage: it says that it has begun, and on SIGTERM that it has saved.
STAGE = """\
import pathlib, signal, sys, time
def save(*_):
    pathlib.Path("saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, {handler})
pathlib.Path("begun").touch()
time.sleep(600)
"""
SQUEUE = """\
#!/bin/sh
[ -e jobs ] && cat jobs
exit 0
"""
# SIGTERM ends a job, which is then listed no longer; unless it is deaf, and waits for the bare command.
SCANCEL = """\
#!/bin/sh
echo "$@" >> cancelled
case "$1" in --state=*) exit 0;; --signal=*) [ -e deaf ] && exit 0;; esac
rm -f jobs
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, with a SLURM that is two scripts and a file of jobs."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in {"squeue": SQUEUE, "scancel": SCANCEL}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    made = tmp_path / "work"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts a process in the folder; none outlives the test."""
    started = []

    def process(*command: str, cwd: Path = folder) -> "subprocess.Popen[bytes]":
        started.append(subprocess.Popen(command, cwd=cwd))
        return started[-1]

    yield process
    for one in started:
        if one.poll() is None:
            for child in psutil.Process(one.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):  # it may end by itself just now
                    child.kill()
            one.kill()
        one.wait()


def until(path: Path) -> None:
    limit = time.monotonic() + PATIENCE_SECONDS
    while not path.exists() and time.monotonic() < limit:
        time.sleep(0.01)
    assert path.exists()


def rule_shell(folder: Path, handler: str = "save") -> tuple[str, ...]:
    """A rule's shell at a stage, as common.smk's prefix makes it."""
    (folder / "scripts").mkdir()
    (folder / "scripts/unlearn.py").write_text(STAGE.format(handler=handler))
    line = f"set -euo pipefail; trap '' INT TERM; {sys.executable} scripts/unlearn.py 2>&1 | tee log"
    return ("bash", "-c", line)


def listed(folder: Path, *, host: str = "localhost", name: str = RUN_ID, where: Path | None = None) -> None:
    (folder / "jobs").write_text(f"7|{host}|{name}|{where or folder}|rule_unlearn|\n")


def test_a_stage_without_a_master_saves_and_ends(folder: Path, start: Start) -> None:
    shell = start(*rule_shell(folder))
    until(folder / "begun")
    [line] = recover(folder, PATIENCE_SECONDS)
    assert "scripts/unlearn.py): ended by itself" in line
    assert (folder / "saved").exists()
    assert shell.wait(PATIENCE_SECONDS) == 143


def test_a_stage_that_does_not_end_is_killed(folder: Path, start: Start) -> None:
    shell = start(*rule_shell(folder, "signal.SIG_IGN"))
    until(folder / "begun")
    [line] = recover(folder, 0.2)
    assert line.endswith("killed")
    assert shell.wait(PATIENCE_SECONDS) == 128 + signal.SIGKILL


def test_processes_of_other_folders_and_those_started_by_hand_are_left_alone(
    folder: Path, start: Start, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    theirs = start(*rule_shell(other), cwd=other)
    by_hand = start(sys.executable, "-c", STAGE.format(handler="save"))
    until(other / "begun")
    until(folder / "begun")
    assert list(recover(folder, 0.2)) == []
    assert theirs.poll() is None
    assert by_hand.poll() is None


def test_a_living_workflow_is_not_touched(folder: Path, start: Start) -> None:
    (folder / "snakemake").write_text("import time; time.sleep(600)")
    start(sys.executable, "snakemake", "--profile", "slurm")
    stage = start(*rule_shell(folder))
    until(folder / "begun")
    listed(folder)
    with pytest.raises(AliveError, match="Snakemake is running here"):
        list(recover(folder, 0.2))
    assert stage.poll() is None
    assert not (folder / "cancelled").exists()


def test_slurm_jobs_save_first(folder: Path) -> None:
    listed(folder)
    assert list(recover(folder, PATIENCE_SECONDS)) == ["SLURM job 7 (rule_unlearn): ended by itself"]
    assert (folder / "cancelled").read_text().split("\n")[:-1] == ["--state=PENDING 7", "--signal=TERM 7"]


def test_slurm_jobs_that_do_not_end_are_cancelled(folder: Path) -> None:
    listed(folder)
    (folder / "deaf").touch()
    assert list(recover(folder, 0.2)) == ["SLURM job 7 (rule_unlearn): cancelled; it had not ended by itself"]
    assert (folder / "cancelled").read_text().split("\n")[-2] == "7"


@pytest.mark.parametrize("other", [{"name": "tmux-host"}, {"where": Path("/elsewhere")}])
def test_other_slurm_jobs_are_left_alone(folder: Path, other: dict[str, str]) -> None:
    listed(folder, **other)  # type: ignore[arg-type]
    assert list(recover(folder, 0.2)) == []
    assert not (folder / "cancelled").exists()


def test_jobs_that_another_host_has_sent_may_have_a_living_master_there(folder: Path) -> None:
    listed(folder, host="login2.cluster")
    with pytest.raises(AliveError, match="submitted from login2, where .* first run: scancel --signal=TERM 7$"):
        list(recover(folder, 0.2))
    assert not (folder / "cancelled").exists()


def test_a_slurm_that_does_not_answer_is_no_slurm_without_jobs_but_what_runs_here_ends(
    folder: Path, start: Start
) -> None:
    (folder.parent / "bin/squeue").write_text("#!/bin/sh\necho down >&2\nexit 1\n")
    shell = start(*rule_shell(folder))
    until(folder / "begun")
    with pytest.raises(RuntimeError, match="squeue failed: down; is SLURM up"):
        list(recover(folder, PATIENCE_SECONDS))
    assert (folder / "saved").exists()
    assert shell.wait(PATIENCE_SECONDS) == 143
