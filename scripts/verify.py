"""Checks an archive of a result to the byte, makes its tables and figures again, and says what differs."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from resalign.artifact.verify import verify
from resalign.stage import run_stage
from resalign.tracking import log


def main() -> None:
    """Command line of `make verify`; exit status 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "archive", type=Path, help="results/<experiment>/artifact/<experiment>.zip, its .sha256 beside it"
    )
    found = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    if not found.archive.is_file():
        sys.exit(f"error: {found.archive}: no such file; make verify ARTIFACT=path/to/the-archive.zip")
    with tempfile.TemporaryDirectory(prefix="resalign-verify-") as folder:
        problems = verify(found.archive.resolve(), Path(folder))
    for problem in problems:
        log.error("DIFFERS: %s", problem)
    if problems:
        sys.exit(f"{found.archive}: not verified: {len(problems)} problems")
    log.info("%s: verified", found.archive)


if __name__ == "__main__":
    run_stage(main)
