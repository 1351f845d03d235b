"""Where a number of the page comes from: a file, its row there, and the command that makes the file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from resalign.jobs.report import PAGE


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
