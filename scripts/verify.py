"""Checks an archive of a result to the byte, makes its tables and figures again, and prints every difference."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from resalign.artifact.verify import verify
from resalign.running.stage import run_stage
from resalign.tracking import log


def main() -> None:
    """Command line of `make verify`; exit status 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "archive", type=Path, help="results/<experiment>/artifact/<experiment>.zip, its .sha256 beside it"
    )
    parser.add_argument(
        "--most-gigabytes",
        type=float,
        help="that it may unpack to; if not given: 1, or 100 times its size",
    )
    parser.add_argument(
        "--run-its-code",
        action="store_true",
        help="make everything by the code that the archive brings, without network, environment and write access",
    )
    parser.add_argument(
        "--without-isolation", action="store_true", help="run that code with your network and your files all the same"
    )
    found = parser.parse_args()
    if found.without_isolation and not found.run_its_code:
        parser.error("--without-isolation is of code that --run-its-code runs")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    if not found.archive.is_file():
        sys.exit(f"error: {found.archive}: no such file; make verify ARTIFACT=path/to/the-archive.zip")
    with tempfile.TemporaryDirectory(prefix="resalign-verify-") as folder:
        problems = verify(
            found.archive.absolute(),
            Path(folder).resolve(),
            most_bytes=None if found.most_gigabytes is None else int(found.most_gigabytes * 1e9),
            runs_its_code=found.run_its_code,
            isolated=not found.without_isolation,
        )
    for problem in problems:  # which may have names and texts of others
        log.error("DIFFERS: %s", "".join(letter if letter.isprintable() else "?" for letter in problem))
    if problems:
        sys.exit(f"{found.archive}: not verified: {len(problems)} problems")
    log.info("%s: verified", found.archive)


if __name__ == "__main__":
    run_stage(main)
