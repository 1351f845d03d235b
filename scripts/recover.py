"""Cleans up after a workflow that was killed hard, so that the same command goes on (`make recover`)."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from resalign.running.recover import AliveError, recover
from resalign.running.stage import run_stage


def main() -> None:
    """Ends the jobs that are left, then unlocks the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("options", nargs="*", help="options for `snakemake --unlock`, after --")
    options = parser.parse_args().options
    try:
        lines = list(recover(Path.cwd()))
    except (AliveError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    print(*(lines or ["no job was left running"]), sep="\n")  # noqa: T201
    unlocked = subprocess.run([sys.executable, "-m", "snakemake", "--unlock", *options], capture_output=True, text=True)
    if unlocked.returncode:
        sys.exit(f"error: snakemake --unlock failed:\n{unlocked.stderr.strip()}")
    print("unlocked; the same command goes on from here")  # noqa: T201


if __name__ == "__main__":
    run_stage(main)
