"""Cleans up after a workflow that was killed hard, so that the same command goes on (`make recover`)."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from resalign.running.recover import SAVING_SECONDS, AliveError, recover
from resalign.running.stage import run_stage


def main() -> None:
    """Ends the jobs that are left, then unlocks the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--saving-seconds", type=float, default=SAVING_SECONDS, help="time for a job to save its state before a kill"
    )
    parser.add_argument(
        "--from-any-host", action="store_true", help="also end SLURM jobs that were sent from another host"
    )
    parser.add_argument("options", nargs="*", help="options for `snakemake --unlock`, after --")
    found = parser.parse_args()
    try:
        lines = list(recover(Path.cwd(), found.saving_seconds, from_any_host=found.from_any_host))
    except (AliveError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    print(*(lines or ["no job was left running"]), sep="\n")  # noqa: T201
    command = [sys.executable, "-m", "snakemake", "--unlock", *found.options]
    unlocked = subprocess.run(command, capture_output=True, text=True)
    if unlocked.returncode:
        sys.exit(f"error: snakemake --unlock failed:\n{unlocked.stderr.strip()}")
    print("unlocked; the same command goes on from here")  # noqa: T201


if __name__ == "__main__":
    run_stage(main)
