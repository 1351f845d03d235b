"""Where a number of the page comes from: a file, its row there, and the command that makes the file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

PAGE = "report.html"
EFFICIENCY = "efficiency.csv"  # written by resalign.report.efficiency, when a run has ended
TABLE, LATEX = "tables/table1.csv", "tables/table1.tex"
STEPS, PER_RUN, PAIRED = "tables/steps.csv", "tables/per_run.csv", "tables/paired.csv"
SURVIVAL, PARETO = "tables/survival.csv", "tables/pareto.csv"
ALWAYS = (PAGE, TABLE, LATEX, STEPS, PER_RUN, PAIRED, SURVIVAL, PARETO)
WORDS = "attacks.md"  # where there are sweeps


def sweep_files(label: str) -> tuple[str, str, str]:
    """A sweep's values, their mean and worst, and its LaTeX."""
    stem = f"tables/sweep-{label}"
    return f"{stem}.csv", f"{stem}-summary.csv", f"{stem}.tex"


def files(sweeps: Iterable[str]) -> tuple[str, ...]:
    """The files of a report: outputs of its rule, so that each can be asked for by its name.

    Figures depend on what was measured: their folder is an output.

    Args:
        sweeps: Labels of the experiment's sweeps.
    """
    swept = [file for label in sweeps for file in sweep_files(label)]
    return (*ALWAYS, *swept, *([WORDS] if swept else []))


@dataclass(frozen=True)
class Sources:
    """Links and commands of one page.

    Attributes:
        command: What a person types to make a file, from the repository's root and up to the file's name.
        folder: The page's, from the repository's root.
        output: The page's, where it is written.
        made: Files in it that can be asked for by their name.
    """

    command: str
    folder: str
    output: Path
    made: frozenset[str]

    def link(self, file: str, row: int | None = None) -> str:
        """The file beside the page; ``row`` counts from 0 below the header.

        Source: RFC 7111, Section 2.1: a fragment names a row of a CSV file, whose first row is number 1.
        """
        return quote(file) if row is None else f"{quote(file)}#row={row + 2}"

    def command_for(self, file: str) -> str:
        """Makes a file beside the page."""
        return f"{self.command}{self.folder}/{file if file in self.made else PAGE}"

    def title(self, file: str, row: int | None = None) -> str:
        """What a reader is told who points at a number."""
        where = file if row is None else f"{file}, row {row + 2}"
        return f"{where}\n{self.command_for(file)}"

    def outside(self, path: str | Path) -> str:
        """The link to a file of a run: a path from where the report is made, such as ``results/runs/…``."""
        return quote(Path(os.path.relpath(path, self.output)).as_posix())
