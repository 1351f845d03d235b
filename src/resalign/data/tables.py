"""Reads tables of users and publishers strictly: CSV, JSON lines and parquet, by the file's suffix.

Nothing is guessed, nothing is turned into text, nothing of equal name takes another's place: columns that are there
twice, keys that a JSON line repeats, and rows with a field too many or too few are refused. CSV and JSON lines are
UTF-8, with or without a byte order mark. JSON lines end only at a line feed (RFC 8259 allows other line separators
inside a text), records of CSV may span lines.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resalign.errors import DataError
from resalign.hashes import verified

SUFFIXES = (".csv", ".jsonl", ".parquet")
MAX_BYTES = 4 << 30  # of a file; the largest in use, DiffusionDB's metadata, has 200 MB
MAX_ROWS = 20_000_000  # of a parquet file, which a few bytes may announce
# Of what a message shows of a value.
SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Table:
    """A table's rows.

    Attributes:
        label: What to call the table in messages, which count rows from 0.
        columns: Every column, in the file's order; a row of JSON lines may lack some.
        rows: Values by column. CSV has only texts; the others have what they hold: None, numbers, lists and so on.
    """

    label: str
    columns: tuple[str, ...]
    rows: list[dict[str, Any]]

    def text(self, number: int, column: str) -> str:
        """The text in a row's column.

        Raises:
            DataError: Naming table, row and what is there, if it is no text that UTF-8 can hold.
        """
        return text_of(self.rows[number].get(column), f"{self.label}: row {number}: column {column!r}")


def read_table(path: Path, *, numbers_as_text: bool = False) -> Table:
    """Reads a table from a file; see :func:`parse_table`."""
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise DataError(f"{path}: has {size} bytes, at most {MAX_BYTES} are read; divide it, or take a part of it")
        content = verified(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); give a table {SUFFIXES}") from None
    return parse_table(str(path), content, numbers_as_text=numbers_as_text)


def parse_table(label: str, content: bytes, *, numbers_as_text: bool = False) -> Table:
    """Reads a table from a file's content.

    Args:
        label: Name of the table in messages; its suffix gives its kind, CSV for all but ``.jsonl`` and ``.parquet``.
        content: The file's.
        numbers_as_text: Numbers of JSON lines are the text that the file has for them, as in CSV: an id keeps its form.

    Raises:
        DataError: Naming the table, and the row where there is one, with the remedy.
    """
    kind = {".parquet": "parquet", ".jsonl": "JSON lines"}.get(Path(label).suffix, "CSV")
    try:
        if kind == "parquet":
            return _parquet(label, content)
        text = content.decode("utf-8-sig")
        return _json_lines(label, text, numbers_as_text) if kind == "JSON lines" else _csv(label, text)
    except DataError:
        raise
    # pyarrow's ArrowInvalid, UnicodeDecodeError and JSON's error are ValueErrors, its others OSErrors and TypeErrors.
    except (csv.Error, OSError, RecursionError, TypeError, ValueError, NotImplementedError) as error:
        encoding = "" if kind == "parquet" else " in UTF-8"
        raise DataError(f"{label}: not a whole {kind} table{encoding} ({error}); fetch or export it again") from None


def _csv(label: str, text: str) -> Table:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] = []
    rows: list[dict[str, Any]] = []
    for fields in reader:
        if not fields:  # a blank line
            continue
        if not columns:
            columns = fields
            _check_names(label, columns, "columns")
            continue
        if len(fields) != len(columns):
            raise DataError(
                f"{label}: row {len(rows)} has {len(fields)} fields, the header of this CSV has {len(columns)}; "
                "put texts that hold commas between double quotes"
            )
        rows.append(dict(zip(columns, fields, strict=True)))
    return Table(label, tuple(columns), rows)


def _json_lines(label: str, text: str, numbers_as_text: bool) -> Table:
    rows = []
    options: dict[str, Any] = {"parse_int": str, "parse_float": str} if numbers_as_text else {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip(" \t\r"):
            continue

        def once(pairs: list[tuple[str, Any]], number: int = number) -> dict[str, Any]:
            _check_names(f"{label}: line {number}", [key for key, _ in pairs], "keys")
            return dict(pairs)

        try:
            row = json.loads(line, object_pairs_hook=once, **options)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number}: {error.msg} at character {error.pos}") from None
        if not isinstance(row, dict):
            raise DataError(
                f'{label}: line {number} is {described(row)}; expected one object a line, {{"column": "text"}}'
            )
        rows.append(row)
    return Table(label, tuple(dict.fromkeys(key for row in rows for key in row)), rows)


def _parquet(label: str, content: bytes) -> Table:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(io.BytesIO(content))
    if file.metadata.num_rows > MAX_ROWS:
        raise DataError(
            f"{label}: has {file.metadata.num_rows} rows, at most {MAX_ROWS} are read; divide it, or take a part of it"
        )
    table = file.read()
    _check_names(label, table.column_names, "columns")
    return Table(label, tuple(table.column_names), table.to_pylist())


def _check_names(label: str, names: Sequence[str], what: str) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise DataError(f"{label}: the {what} {twice} are there more than once; keep one of each, or rename them")


def text_of(value: Any, where: str) -> str:
    r"""Checks that a value is text, and returns it.

    Args:
        value: What a table has.
        where: Of which table, row and column, for messages.

    Raises:
        DataError: If it is none, or holds half a character (such as "\ud83d" in JSON), which UTF-8 cannot hold.
    """
    if not isinstance(value, str):
        raise DataError(f"{where} holds {described(value)}; write one text in its place")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{where} holds half a character ({error.reason}: {shown(value)}); write it again") from None
    return value


def described(value: Any) -> str:
    """Describes a value for a message: its kind and its beginning."""
    kinds = {
        dict: "a struct",
        list: "a list",
        bytes: "bytes",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    if value is None:
        return "nothing (null)"
    return f"{kinds.get(type(value), type(value).__name__)} ({shown(value)})"


def shown(value: Any) -> str:
    """A value's beginning as ASCII, on one line."""
    text = ascii(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
