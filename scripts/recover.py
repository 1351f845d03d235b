"""Cleans up after a workflow that was killed hard, so that the same command goes on (`make recover`)."""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from pathlib import Path

from resalign.running.recover import SAVING_SECONDS, AliveError, recover
from resalign.running.stage import run_stage
from resalign.tracking import log


def main() -> None:
    """Ends the jobs that are left, then unlocks the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--saving-seconds", type=float, default=SAVING_SECONDS, help="time to save that a job has before it is killed"
    )
    parser.add_argument(
        "--from-any-host", action="store_true", help="end SLURM jobs too that were sent from another host than this one"
    )
    parser.add_argument(
        "--no-slurm",
        action="store_true",
        help="for a machine that has SLURM's commands, where none is up: ask for none",
    )
    parser.add_argument("options", nargs="*", help="options for `snakemake --unlock`, after --")
    found = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        lines = list(
            recover(Path.cwd(), found.saving_seconds, from_any_host=found.from_any_host, slurm=not found.no_slurm)
        )
    except (AliveError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    for line in lines or ["no job was left running"]:
        log.info("%s", line)
    command = [sys.executable, "-m", "snakemake", "--unlock", *found.options]
    unlocked = subprocess.run(command, capture_output=True, text=True)
    if unlocked.returncode:
        sys.exit(f"error: snakemake --unlock failed:\n{unlocked.stderr.strip()}")
    log.info("unlocked; the same command goes on from here")


if __name__ == "__main__":
    run_stage(main)
