"""What a workflow that was killed leaves behind: jobs without a master, ended so that they save their state."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

# For what a stage does after SIGTERM: end its step and save. SLURM's own KillWait is often half a minute.
SAVING_SECONDS = 120.0
# How the shell of every rule begins (workflow/rules/common.smk).
_RULE_SHELL = "trap '' INT TERM"
# The plugin names a run's jobs by the run's UUID; other jobs that were sent from the folder are not the workflow's.
_RUN_ID = re.compile(r"([\w-]+_)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class AliveError(RuntimeError):
    """The workflow is not dead, or may not be; nothing was touched."""


@dataclass(frozen=True)
class SlurmJob:
    """A job of the workflow that SLURM still has.

    Attributes:
        number: Its id.
        submitted_from: Host on which the command was started.
        comment: Rule and wildcards.
    """

    number: str
    submitted_from: str
    comment: str


def recover(
    folder: Path, saving_seconds: float = SAVING_SECONDS, *, from_any_host: bool = False, slurm: bool = True
) -> Iterator[str]:
    """Ends every job that a killed workflow has left running, on this machine and on SLURM.

    Args:
        folder: Working directory of the workflow.
        saving_seconds: Time to save, between SIGTERM and SIGKILL.
        from_any_host: Whether SLURM jobs are ended that were sent from a host other than this one.
        slurm: Whether SLURM is asked for jobs at all.

    Yields:
        One line for each job.

    Raises:
        AliveError: If a Snakemake process still has the folder, or may have it on another host.
        RuntimeError: If SLURM does not answer.
    """
    folder = folder.resolve()
    if masters := [process.pid for process in _processes(folder) if _is_master(process)]:
        raise AliveError(
            f"{folder}: Snakemake is running here (process {', '.join(map(str, masters))}); nothing was touched. "
            "To end it too, press Ctrl-C where it runs, or kill it first"
        )
    jobs = _slurm_jobs(folder) if slurm else []
    elsewhere = sorted({job.submitted_from for job in jobs} - {_host(socket.gethostname()), "localhost"})
    if elsewhere and not from_any_host:
        raise AliveError(
            f"{folder}: jobs {', '.join(job.number for job in jobs)} were sent from {', '.join(elsewhere)}, where "
            "Snakemake may be alive; nothing was touched. Run this there, or, if it is dead, with --from-any-host"
        )
    yield from _end_slurm_jobs(folder, jobs, saving_seconds)
    yield from _end_processes([p for p in _processes(folder) if _has_rule_shell(p)], saving_seconds)


def _processes(folder: Path) -> Iterator[psutil.Process]:
    """This user's processes that work in a folder."""
    for process in psutil.process_iter(["cwd", "uids"]):
        if process.info["cwd"] == str(folder) and process.info["uids"].real == os.getuid():
            yield process


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _is_master(process: psutil.Process) -> bool:
    """Whether a process is the command that the user started; what Snakemake itself starts has a ``--mode``."""
    command = _command(process)
    started = any(os.path.basename(argument) == "snakemake" for argument in command[:3])
    return started and "python" in os.path.basename(command[0]) and "--mode" not in command


def _has_rule_shell(process: psutil.Process) -> bool:
    """Whether a rule's shell has started a process; the pipe into the log ends with it."""
    parent = process.parent()
    command = _command(process)
    return bool(parent and command and command[0] != "tee" and any(_RULE_SHELL in part for part in _command(parent)))


def _slurm_jobs(folder: Path) -> list[SlurmJob]:
    """The workflow's jobs that SLURM has not ended; none where there is no SLURM."""
    if not shutil.which("squeue"):
        return []
    fields = "JobID:|,AllocNodes:|,Name:|,WorkDir:|,Comment:|"
    listed = _slurm("squeue", "--noheader", "--user", str(os.getuid()), "--Format", fields)
    jobs = []
    for row in listed.splitlines():
        number, host, name, sent_from, comment, *_ = (part.strip() for part in row.split("|"))
        if sent_from == str(folder) and _RUN_ID.fullmatch(name):
            jobs.append(SlurmJob(number, _host(host), comment))
    return jobs


def _slurm(*command: str) -> str:
    """What a command of SLURM prints.

    Raises:
        RuntimeError: If it fails.
    """
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        raise RuntimeError(f"{command[0]} failed: {finished.stderr.strip()}; is SLURM up? Without it, add --no-slurm")
    return finished.stdout


def _end_slurm_jobs(folder: Path, jobs: Sequence[SlurmJob], saving_seconds: float) -> Iterator[str]:
    """Cancels jobs: those that wait at once, those that run after they have saved their state."""
    if not jobs:
        return
    numbers = [job.number for job in jobs]
    _scancel("--state=PENDING", *numbers)
    _scancel("--signal=TERM", *numbers)
    _until(lambda: not _slurm_jobs(folder), saving_seconds)
    if left := [job.number for job in _slurm_jobs(folder)]:
        _scancel(*left)
        _until(lambda: not _slurm_jobs(folder), saving_seconds)
    for job in jobs:
        how = "cancelled; it had not ended by itself" if job.number in left else "ended by itself"
        yield f"SLURM job {job.number} ({job.comment}): {how}"


def _scancel(*arguments: str) -> None:
    """Its status is of no use: it fails for jobs that have just ended."""
    subprocess.run(["scancel", *arguments], capture_output=True)


def _end_processes(orphans: Iterable[psutil.Process], saving_seconds: float) -> Iterator[str]:
    """SIGTERM, time to save, SIGKILL."""
    names = {process: " ".join(_command(process)[:2]) for process in orphans}
    for process in names:
        _send(process, signal.SIGTERM)
    _, left = psutil.wait_procs(list(names), timeout=saving_seconds)
    for process in left:
        _send(process, signal.SIGKILL)
    for process, name in names.items():
        yield f"process {process.pid} ({name}): {'killed' if process in left else 'ended by itself'}"


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _until(true: Callable[[], object], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not true() and time.monotonic() < limit:
        time.sleep(min(1.0, seconds / 10))


def _host(name: str) -> str:
    """A host's name without its domain."""
    return name.split(".")[0]
