"""Snakemake's own notes of outputs: where they lie, and how a result that has lost files is noted as incomplete."""

from __future__ import annotations

import contextlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

from resalign import hashes

METADATA, INCOMPLETE = Path(".snakemake/metadata"), Path(".snakemake/incomplete")
LONGEST_NAME = 254  # a note is named by its output; Snakemake breaks longer names into folders
MARK = "damaged"  # distinguishes our notes from Snakemake's own, which are of killed jobs


def note_of(output: Path | str, notes: Path = METADATA) -> Path:
    """Path of Snakemake's note of an output [snakemake/persistence/file.py, 9.27]."""
    name = urlsafe_b64encode(str(output).encode()).decode()
    *folders, last = (name[start : start + LONGEST_NAME] for start in range(0, len(name), LONGEST_NAME))
    return notes.joinpath(*(f"@{folder}" for folder in folders), last)


def note_damage(results: Path) -> Iterator[str]:
    """Has Snakemake make again every result of which a file is missing or has another size, where a run needs it.

    Most files of a result are outputs of no rule, and Snakemake looks at none's size. It makes again what it has noted
    as incomplete, and removes that note; notes that are no longer true are removed here.

    Yields:
        What is wrong, a line for each result.
    """
    for note in [path for path in INCOMPLETE.rglob("*") if path.is_file()]:
        with contextlib.suppress(FileNotFoundError):  # a workflow that is running removes its own
            if f'"{MARK}"' in note.read_text(encoding="utf-8", errors="replace"):
                note.unlink()
    for folder, problem in hashes.incomplete(results):
        yield problem
        for record in hashes.records_of(folder):  # an output of every rule whose job leaves one
            note = note_of(record, INCOMPLETE)
            if record.is_file() and not note.exists():
                note.parent.mkdir(parents=True, exist_ok=True)
                note.write_text(json.dumps({"external_jobid": None, MARK: problem}), encoding="utf-8")
