"""Any Hugging Face data set that is parquet files with an image and a text column, such as the Pokémon captions.

Source: https://huggingface.co/docs/hub/datasets-image, parquet: an image is a struct of ``bytes`` and ``path``.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from resalign.config.strict import Strict
from resalign.data.image_sets import Picture, Splits, write_splits
from resalign.data.members import log_left_out
from resalign.data.tables import described, text_of
from resalign.errors import DataError

INPUTS = ("source",)


class Config(Strict):
    """Which columns, and how the rows are split.

    Attributes:
        source: Folder with parquet files, as ``asset`` or ``asset/folder``.
        image_column: Structs with ``bytes``, or the bytes themselves.
        text_column: Captions.
        splits: Images of each folder to make; null for the rest.
        seed: Decides which row is in which split.
    """

    source: str
    image_column: str = "image"
    text_column: str = "text"
    splits: Splits = {"train": None}
    seed: int = Field(0, ge=0)


def prepare(config: Config, output: Path) -> None:
    """Writes the splits; only the images that are chosen are read.

    Raises:
        DataError: If there is no parquet file, or it lacks a column, a caption is no text, or an image is not in it.
    """
    folder = Path(config.source)
    files = sorted(path for path in folder.rglob("*.parquet") if path.is_file())
    if not files:
        raise DataError(f"{folder}: no parquet file; fetch the data set's parquet branch, or use image_folder")
    rest = {path for path in folder.rglob("*") if path.is_file()} - set(files)
    log_left_out(str(folder), "files that are no parquet files", (path.relative_to(folder).as_posix() for path in rest))
    pictures = [picture for file in files for picture in _pictures(config, folder, file)]
    write_splits(pictures, config.splits, config.seed, output, label=str(folder))


def _pictures(config: Config, folder: Path, file: Path) -> list[Picture]:
    import pyarrow.parquet

    with _named(file):
        table = pyarrow.parquet.ParquetFile(file)
        names = table.schema_arrow.names
        required = {config.image_column, config.text_column}
        missing = sorted(name for name in required if names.count(name) != 1)
        if missing:
            raise DataError(
                f"{file}: not exactly one column {missing}; found {names}; name its own in the configuration"
            )
        groups = [
            table.read_row_group(group, [config.text_column]).column(0).to_pylist()
            for group in range(table.num_row_groups)
        ]

    @functools.lru_cache(maxsize=1)
    def images(group: int) -> Any:
        with _named(file):
            return table.read_row_group(group, [config.image_column]).column(0)

    def read(group: int, row: int) -> bytes:
        value = images(group)[row].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise DataError(f"{file}: row {row} of group {group} holds no image but {described(value)}")
        return content

    return [
        Picture(
            f"{file.relative_to(folder).as_posix()}#{group}.{row}",
            text_of(text, f"{file}: row {row} of group {group}: column '{config.text_column}'"),
            functools.partial(read, group, row),
        )
        for group, texts in enumerate(groups)
        for row, text in enumerate(texts)
    ]


@contextlib.contextmanager
def _named(file: Path) -> Iterator[None]:
    """Adds the file's name to whatever pyarrow raises."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a whole parquet file ({error}); fetch it again") from None
