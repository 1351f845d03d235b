"""The last lines of a workflow run: where its products are, or why its jobs failed."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterable
from pathlib import Path

# The file of a folder that a reader opens, by preference.
PAGES = (".html", ".zip", ".md")
MOST_PLACES = 3  # of a target, the others are counted


def failures(logs: Iterable[str]) -> list[str]:
    """The last error of each log, or its last line where there is none; equal ones once, with their logs."""
    found: dict[str, list[str]] = {}
    for log in logs:
        text = Path(log).read_text(encoding="utf-8", errors="replace") if Path(log).is_file() else ""
        lines = [line for line in text.splitlines() if line.strip()]
        told = [line for line in lines if line.startswith(("error: ", "stopped: "))] or lines
        if told:
            found.setdefault(told[-1], []).append(log)
    return [f"{line}\n    log: {', '.join(logs)}" for line, logs in found.items()]


def products(target: str, files: Iterable[str]) -> str:
    """One line with the places of a target's files: the page of each folder, or else the folder."""
    folders: dict[str, list[str]] = {}
    for file in files:
        folders.setdefault(file if os.path.isdir(file) else os.path.dirname(file) or ".", []).append(file)
    pages = {
        folder: [f for suffix in PAGES for f in inside if f.endswith(suffix)] for folder, inside in folders.items()
    }
    places = [found[0] if found else f"{folder}/" for folder, found in pages.items()]
    more = f" and {len(places) - MOST_PLACES} more" if len(places) > MOST_PLACES else ""
    return f"{target}: {', '.join(places[:MOST_PLACES])}{more}"


def say_last(lines: Iterable[str]) -> None:
    """Prints lines when this process ends, below all of Snakemake's own output."""
    atexit.register(sys.stderr.write, "".join(f"{line}\n" for line in lines))
