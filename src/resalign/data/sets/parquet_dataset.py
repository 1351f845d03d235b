"""Any Hugging Face data set that is parquet files with an image and a text column, such as the Pokémon captions.

Source: https://huggingface.co/docs/hub/datasets-image, parquet: an image is a struct of ``bytes`` and ``path``.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from pydantic import Field

from resalign.config.strict import Strict
from resalign.data.image_sets import Picture, Splits, write_splits
from resalign.data.images import DataError

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
        DataError: If there is no parquet file, or it lacks a column, or an image is not in it.
    """
    folder = Path(config.source)
    files = sorted(path for path in folder.rglob("*.parquet") if path.is_file())
    if not files:
        raise DataError(f"{folder}: no parquet file; fetch the data set's parquet branch, or use image_folder")
    pictures = [picture for file in files for picture in _pictures(config, folder, file)]
    write_splits(pictures, config.splits, config.seed, output, label=str(folder))


def _pictures(config: Config, folder: Path, file: Path) -> list[Picture]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file)
        names = table.schema_arrow.names
        missing = sorted({config.image_column, config.text_column} - set(names))
        if missing:
            raise DataError(f"{file}: no column {missing}; found {names}; name its own in the configuration")
        groups = [table.read_row_group(group, [config.text_column]) for group in range(table.num_row_groups)]
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a whole parquet file ({error}); fetch it again") from None

    @functools.lru_cache(maxsize=1)
    def images(group: int) -> Any:
        return table.read_row_group(group, [config.image_column]).column(0)

    def read(group: int, row: int) -> bytes:
        value = images(group)[row].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise DataError(f"{file}: row {row} of group {group} holds no image but {str(value)[:80]!r}")
        return content

    return [
        Picture(
            f"{file.relative_to(folder).as_posix()}#{group}.{row}",
            str(text.as_py() or ""),
            functools.partial(read, group, row),
        )
        for group, texts in enumerate(groups)
        for row, text in enumerate(texts.column(0))
    ]
