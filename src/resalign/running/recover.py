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
_RUN_ID = re.compile(
    r"([\w-]+_)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
)  # the plugin names jobs by their run's UUID


class AliveError(RuntimeError):
    """The workflow is alive, or may be; nothing was touched."""


def recover(folder: Path, saving_seconds: float = SAVING_SECONDS, *, from_any_host: bool = False) -> Iterator[str]:
    """Ends every job that a killed workflow has left running in a folder, on this machine and on SLURM.

    Args:
        folder: Working directory of the workflow.
        saving_seconds: Time to save, between SIGTERM and SIGKILL.
        from_any_host: Whether SLURM jobs are ended that were sent from a host other than this one.

    Yields:
        One line for each job.

    Raises:
        AliveError: If a Snakemake process still has the folder, or may have it on another host.
        RuntimeError: If SLURM does not answer.
    """
    folder, left = folder.resolve(), list[psutil.Process]()
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
                left.append(process)
    jobs = _slurm_jobs(folder)
    elsewhere = {host for host, _ in jobs.values()} - {socket.gethostname().split(".")[0], "localhost"}
    if elsewhere and not from_any_host:
        raise AliveError(
            f"{folder}: jobs {', '.join(jobs)} were sent from {', '.join(sorted(elsewhere))}, where Snakemake may be "
            "alive; nothing was touched. Run this there, or, if it is dead, with --from-any-host"
        )
    yield from _end_slurm_jobs(folder, jobs, saving_seconds)
    names = {process: " ".join(process.info["cmdline"][:2]) for process in left}
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, deaf = psutil.wait_procs(left, timeout=saving_seconds)
    for process in left:
        if process in deaf:
            process.kill()
        yield f"process {process.pid} ({names[process]}): {'killed' if process in deaf else 'ended by itself'}"


def _slurm_jobs(folder: Path) -> dict[str, tuple[str, str]]:
    """Host and comment (the rule) of the workflow's jobs that SLURM has not ended, by id; none without SLURM."""
    if not shutil.which("squeue"):
        return {}
    fields = "JobID:|,AllocNodes:|,Name:|,WorkDir:|,Comment:|"
    command = ["squeue", "--noheader", "--user", str(os.getuid()), "--Format", fields]
    listed = subprocess.run(command, capture_output=True, text=True)
    if listed.returncode:
        raise RuntimeError(f"squeue failed: {listed.stderr.strip()}; is SLURM up? Without it: snakemake --unlock")
    rows = ([part.strip() for part in row.split("|")] for row in listed.stdout.splitlines())
    return {
        number: (host.split(".")[0], comment)
        for number, host, name, sent_from, comment, *_ in rows
        if sent_from == str(folder) and _RUN_ID.fullmatch(name)
    }


def _end_slurm_jobs(folder: Path, jobs: dict[str, tuple[str, str]], saving_seconds: float) -> Iterator[str]:
    """Cancels waiting jobs at once, and running ones after they have saved their state."""

    def cancel(numbers: set[str], *options: str) -> set[str]:
        """The jobs that are left; scancel's exit status is of no use, as it fails for a job that has just ended."""
        subprocess.run(["scancel", *options, *sorted(numbers)], capture_output=True)
        limit = time.monotonic() + saving_seconds
        while (left := numbers & _slurm_jobs(folder).keys()) and time.monotonic() < limit:
            time.sleep(min(1.0, saving_seconds / 10))
        return left

    if jobs:
        subprocess.run(["scancel", "--state=PENDING", *jobs], capture_output=True)
        if deaf := cancel(set(jobs), "--signal=TERM"):
            cancel(deaf)
        for number, (_, comment) in jobs.items():
            how = "cancelled; it had not ended by itself" if number in deaf else "ended by itself"
            yield f"SLURM job {number} ({comment}): {how}"
