"""Compares every file below results/ with the hashes of its job; names each that differs, and the job."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from resalign import hashes
from resalign.config.plan import RESULTS
from resalign.running.stage import run_stage


def main() -> None:
    """Command line of `make verify` without an archive; exit status 1 if a file differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", default=Path(RESULTS), help="a folder of results")
    results = parser.parse_args().results
    folders = hashes.sealed_folders(results)
    if not folders:
        sys.exit(f"error: {results}: holds no results; run the workflow first, or name their folder")
    problems = list(hashes.problems(results))
    if not problems and (others := hashes.unlisted(results)):
        print(f"{len(others)} files that no list has were not checked, such as {others[0]}")  # noqa: T201
    for problem in problems:
        print(f"DAMAGED: {problem}")  # noqa: T201
    if problems:
        sys.exit(f"{results}: {len(problems)} problems in {len(folders)} folders")
    print(f"{results}: the files of {len(folders)} folders are as their jobs have written them")  # noqa: T201


if __name__ == "__main__":
    run_stage(main)
