"""Checks the columns and rows of an asset's tables right after they are fetched."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from pathlib import Path

from resalign.assets.source import SchemaMismatchError, Source
from resalign.data.tables import read_table
from resalign.errors import DataError

REMEDY = "use the pinned version, or correct 'contents' in config/assets.yaml after a look at the file"


def check_contents(source: Source, folder: Path, files: Iterable[str], pattern: str) -> None:
    """Checks the tables of one pattern against the catalogue: the columns of each, and the rows of all together.

    Args:
        source: The asset, for its catalogue entry and for messages.
        folder: Where it lies.
        files: Its files, relative to ``folder``.
        pattern: A key of the entry's contents.

    Raises:
        SchemaMismatchError: If there is no such table, one lacks columns, or they have another number of rows.
    """
    schema, total = source.entry.contents[pattern], 0
    labels = fnmatch.filter(files, pattern)
    if not labels:
        raise source.error(SchemaMismatchError, f"{pattern} is not among its files", REMEDY)
    for label in labels:
        try:
            columns, rows = _read(folder / label)
        except DataError as error:
            raise source.error(SchemaMismatchError, str(error).removeprefix(f"{folder}/"), REMEDY) from None
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            raise source.error(SchemaMismatchError, f"{label} is no whole table ({error})", REMEDY) from None
        missing = [column for column in schema.columns if column not in columns]
        if missing:
            raise source.error(SchemaMismatchError, f"{label} lacks the columns {missing}; it has {columns}", REMEDY)
        total += rows
    if schema.rows is not None and total != schema.rows:
        raise source.error(SchemaMismatchError, f"{pattern} has {total} rows, not {schema.rows}", REMEDY)


def _read(path: Path) -> tuple[list[str], int]:
    """The columns, and the number of records (not lines)."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        file = pyarrow.parquet.ParquetFile(path)
        return list(file.schema_arrow.names), file.metadata.num_rows
    table = read_table(path)
    return list(table.columns), len(table.rows)
