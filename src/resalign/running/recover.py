"""Ends the jobs that a killed workflow has left running, so that they save their state."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

SAVING_SECONDS = 120.0  # for the present step and the saved state; SLURM's own KillWait is often half a minute
_RULE_SHELL = "trap '' INT TERM"  # in the shell of every rule (workflow/rules/common.smk)
_RUN_ID = re.compile(r"([\w-]+_)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # a SLURM job's name: the run's UUID


class AliveError(RuntimeError):
    """The workflow is alive, or may be; nothing was touched."""


def recover(folder: Path, saving_seconds: float = SAVING_SECONDS) -> Iterator[str]:
    """Ends every job that a killed workflow has left running in a folder, on this machine and on SLURM.

    Args:
        folder: Working directory of the workflow.
        saving_seconds: Time to save, between SIGTERM and SIGKILL.

    Yields:
        One line for each job.

    Raises:
        AliveError: If a Snakemake process still has the folder, or may have it on another host.
        RuntimeError: If SLURM does not answer, once this machine's jobs have ended.
    """
    folder, stages = folder.resolve(), dict[psutil.Process, str]()
    for process in psutil.process_iter(["cwd", "uids", "cmdline"]):
        command = process.info["cmdline"] or [""]
        if process.info["cwd"] != str(folder) or process.info["uids"].real != os.getuid():
            continue
        # Snakemake itself starts processes of its own with a --mode.
        if "python" in command[0] and "snakemake" in map(os.path.basename, command[:3]) and "--mode" not in command:
            raise AliveError(
                f"{folder}: Snakemake is running here (process {process.pid}); nothing was touched. To end it too, "
                "press Ctrl-C where it runs, or kill it first"
            )
        with contextlib.suppress(psutil.Error):  # it has just ended
            parent = process.parent()
            if parent and command[0] != "tee" and any(_RULE_SHELL in part for part in parent.cmdline()):
                stages[process] = " ".join(command[:2])
    jobs, unanswered = dict[str, tuple[str, str]](), None
    try:
        jobs = _slurm_jobs(folder)
    except RuntimeError as error:
        unanswered = error  # what runs here can be ended all the same
    hosts = {host for host, _ in jobs.values()} - {socket.gethostname().split(".")[0], "localhost"}
    if hosts:
        raise AliveError(
            f"{folder}: jobs were submitted from {', '.join(sorted(hosts))}, where Snakemake may be alive; nothing was "
            f"touched. Run this there; if that host is down, first run: scancel --signal=TERM {' '.join(jobs)}"
        )
    unfinished = _end_slurm_jobs(folder, jobs, saving_seconds)
    for number, (_, rule) in jobs.items():
        how = "cancelled; it had not ended by itself" if number in unfinished else "ended by itself"
        yield f"SLURM job {number} ({rule}): {how}"
    for process in stages:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, running = psutil.wait_procs(stages, timeout=saving_seconds)
    for process, name in stages.items():
        if process in running:
            process.kill()
        yield f"process {process.pid} ({name}): {'killed' if process in running else 'ended by itself'}"
    if unanswered:
        raise unanswered


def _slurm_jobs(folder: Path) -> dict[str, tuple[str, str]]:
    """Submitting host and comment (the rule) of the workflow's jobs that SLURM has not ended, by id."""
    if not shutil.which("squeue"):
        return {}
    fields = "JobID:|,AllocNodes:|,Name:|,WorkDir:|,Comment:|"
    command = ["squeue", "--noheader", "--user", str(os.getuid()), "--Format", fields]
    squeue = subprocess.run(command, capture_output=True, text=True)
    if squeue.returncode:
        raise RuntimeError(f"squeue failed: {squeue.stderr.strip()}; is SLURM up? Without it: snakemake --unlock")
    rows = ([part.strip() for part in row.split("|")] for row in squeue.stdout.splitlines())
    return {
        number: (host.split(".")[0], comment)
        for number, host, name, submitted_in, comment, *_ in rows
        if submitted_in == str(folder) and _RUN_ID.fullmatch(name)
    }


def _end_slurm_jobs(folder: Path, jobs: dict[str, tuple[str, str]], saving_seconds: float) -> set[str]:
    """Cancels waiting jobs at once, asks running ones to save and end; returns those that had to be cancelled."""

    def scancel(numbers: set[str], *options: str) -> set[str]:
        """The jobs that are left; the exit status is of no use, as it is an error for a job that has just ended."""
        subprocess.run(["scancel", *options, *sorted(numbers)], capture_output=True)
        limit = time.monotonic() + saving_seconds
        while (left := numbers & _slurm_jobs(folder).keys()) and time.monotonic() < limit:
            time.sleep(min(1.0, saving_seconds / 10))
        return left

    if not jobs:
        return set()
    subprocess.run(["scancel", "--state=PENDING", *jobs], capture_output=True)
    if unfinished := scancel(set(jobs), "--signal=TERM"):
        scancel(unfinished)
    return unfinished
