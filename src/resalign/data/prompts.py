"""Prompt lists: a CSV table with a prompt a row, read as its authors released it."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from resalign.config.prompts import LABEL, PromptColumns
from resalign.data.images import DataError, check_prompt


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        id: Key of its initial noise; never changes once images exist.
        text: What the model is given; may be empty (I2P has such a case), but not a whole list of them.
        label: What the image should show, for metrics that ask; '' if unknown.
    """

    id: str
    text: str
    label: str = ""


def read_prompts(path: Path, limit: int | None = None, columns: PromptColumns | None = None) -> list[Prompt]:
    """The first ``limit`` prompts of a list, so that a larger tier's prompts begin with a smaller one's.

    Args:
        path: A CSV file in UTF-8; a quoted prompt may span lines.
        limit: How many; None for all.
        columns: What the table's columns hold; None for id, prompt and, where a metric needs it, label.

    Raises:
        DataError: If the file is missing or no such table, lacks a column, has no row that counts, lacks or repeats an
            id, holds empty prompts only, or fewer prompts than asked for.
    """
    columns = columns or PromptColumns()
    rows = _read_table(path, columns)
    width = len(str(max(len(rows) - 1, 0)))
    prompts = [
        Prompt(
            f"{number:0{width}d}" if columns.id is None else row[columns.id],
            row[columns.prompt],
            row.get(columns.label, ""),
        )
        for number, row in enumerate(rows)
        if _counts(row, columns)
    ]
    for prompt in prompts:
        check_prompt(prompt.text, f"{path}: prompt {prompt.id[:80]!r}")
    if not any(prompt.text.strip() for prompt in prompts):
        condition = f" where {columns.where}" if columns.where else ""
        raise DataError(f"{path}: the prompt list holds no prompts{condition}")
    nameless = sum(not prompt.id.strip() for prompt in prompts)
    if nameless:
        raise DataError(f"{path}: {nameless} prompts have nothing in column {columns.id!r}; give each an id of its own")
    identifier, times = Counter(prompt.id for prompt in prompts).most_common(1)[0]
    if times > 1:
        raise DataError(f"{path}: id {identifier!r} occurs {times} times; an image's noise is keyed by it")
    left = len(prompts) - columns.skip
    if left < max(limit or 0, 1):
        skipped = f" beyond the {columns.skip} that are skipped" if columns.skip else ""
        raise DataError(
            f"{path}: the tier asks for {limit} prompts, the list has {left}{skipped}; lower the tier's number"
        )
    return prompts[columns.skip :][:limit]


def read_prompt_set(settings: Mapping[str, Any], *, where: str) -> list[Prompt]:
    """The prompts of a job's list: its ``path``, its ``columns``, and the number of its ``prompts``, None for all."""
    columns = PromptColumns.parse(dict(settings["columns"]), where=where)
    return read_prompts(Path(settings["path"]), settings["prompts"], columns)


def _read_table(path: Path, columns: PromptColumns) -> list[dict[str, str]]:
    """Every row by column, all text: ids keep their zeros, and a prompt such as "null" stays one."""
    if not path.is_file():
        raise DataError(f"{path}: no such prompt list; expected a CSV file with columns id, prompt")
    kind = "JSON lines" if path.suffix == ".jsonl" else "CSV"
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            header, rows = _read_json_lines(stream) if path.suffix == ".jsonl" else _read_csv(stream)
    except (csv.Error, TypeError, ValueError) as error:  # UnicodeDecodeError and JSON's error are ValueErrors
        raise DataError(f"{path}: not a whole {kind} table in UTF-8 ({error}); fetch or export it again") from None
    label = () if columns.label == LABEL else (columns.label,)
    wanted = [name for name in (columns.id, columns.prompt, *label, *columns.where) if name is not None]
    if not header:
        raise DataError(f"{path}: the prompt list is empty; expected columns {wanted}")
    missing = sorted({name for name in wanted if header.count(name) != 1})
    if missing:
        raise DataError(
            f"{path}: not exactly one column {missing}; found {header}; name the list's own under 'columns'"
        )
    for number, row in enumerate(rows):
        # csv files what a row has too much under the key None, and None as what it has too little.
        if None in row or None in row.values():
            raise DataError(
                f"{path}: row {number} has not {len(header)} fields as the header has; quote commas in prompts"
            )
    return rows


def _read_csv(stream: TextIO) -> tuple[list[str], list[dict[str, str]]]:
    """Header and rows."""
    reader = csv.DictReader(stream, strict=True)
    return list(reader.fieldnames or ()), list(reader)


def _read_json_lines(stream: TextIO) -> tuple[list[str], list[dict[str, str]]]:
    """The columns that every row has, and the rows; a number is the text that the file has for it."""
    rows = [dict(json.loads(line, parse_int=str, parse_float=str)) for line in stream if line.strip()]
    header = [key for key in rows[0] if all(isinstance(row.get(key), str) for row in rows)] if rows else []
    return header, [{key: row[key] for key in header} for row in rows]


def _counts(row: dict[str, str], columns: PromptColumns) -> bool:
    """Whether each column of ``where`` holds its word."""
    return all(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", row[name]) for name, word in columns.where.items())


def write_prompts(path: Path, prompts: Sequence[Prompt]) -> None:
    """Writes a prompt list."""
    import pandas as pd

    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [(p.id, p.text, p.label) for p in prompts]
    pd.DataFrame(rows, columns=["id", "prompt", "label"]).to_csv(path, index=False)
