"""What an asset's tables must hold, checked right after they are fetched: columns and rows."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from resalign.data.source import SchemaMismatchError, Source

REMEDY = "use the pinned version, or correct 'contents' in config/assets.yaml after a look at the file"


def check_contents(source: Source, path: Path, label: str) -> None:
    """Holds a table against the catalogue; files that the catalogue says nothing of pass.

    Args:
        source: The asset, for its catalogue entry and for messages.
        path: The file.
        label: Its name in the asset.

    Raises:
        SchemaMismatchError: If it lacks columns, or has another number of rows.
    """
    wanted = source.contents.get(label)
    if wanted is None:
        return
    if not path.is_file():
        raise source.error(SchemaMismatchError, f"{label} is not among its files", REMEDY)
    try:
        columns, rows = _read(path)
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors, UnicodeDecodeError and JSON's are ValueErrors
        raise source.error(SchemaMismatchError, f"{label} is no whole table ({error})", REMEDY) from None
    missing = [column for column in wanted.columns if column not in columns]
    if missing:
        raise source.error(SchemaMismatchError, f"{label} lacks the columns {missing}; it has {columns}", REMEDY)
    if wanted.rows is not None and rows != wanted.rows:
        raise source.error(SchemaMismatchError, f"{label} has {rows} rows, not {wanted.rows}", REMEDY)


def _read(path: Path) -> tuple[list[str], int]:
    """Columns, and number of rows: records, not lines."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.ParquetFile(path)
        return list(table.schema_arrow.names), table.metadata.num_rows
    with path.open(encoding="utf-8-sig", newline="") as stream:
        if path.suffix == ".jsonl":
            records = [json.loads(line) for line in stream if line.strip()]
            return (list(records[0]) if records and isinstance(records[0], dict) else []), len(records)
        table = csv.reader(stream, strict=True)
        columns = next(table, [])
        return columns, sum(bool(row) for row in table)
