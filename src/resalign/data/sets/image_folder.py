"""Any folder or archive of images in Hugging Face's ``imagefolder`` conventions, such as one of your own.

Captions come from every ``metadata.csv``, ``metadata.jsonl`` or ``metadata.parquet``, whose ``file_name`` is relative
to where it lies; without one, from ``caption``, in which ``{label}`` is the name of the image's folder. So are made the
DreamBooth dog (five photographs, one caption), ArtBench-10 (an archive, the style is the folder) and VGGFace2-HQ.

Source: https://huggingface.co/docs/datasets/image_dataset, "ImageFolder".
"""

from __future__ import annotations

import csv
import io
import json
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field

from resalign.config.strict import Strict
from resalign.data.image_sets import Picture, Splits, write_splits
from resalign.data.images import DataError, is_inside
from resalign.data.members import Members, open_members

INPUTS = ("source",)
TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
CAPTION_COLUMNS = ("prompt", "text", "caption")


class Config(Strict):
    """Which images, their captions, and how they are split.

    Attributes:
        source: Folder or archive, as ``asset`` or ``asset/folder``.
        below: Only files below this folder of it.
        caption: For images without a table of captions; may hold ``{label}``.
        caption_column: Of a table; None for the first of prompt, text, caption.
        splits: Images of each folder to make; null for the rest.
        seed: Decides which image is in which split.
    """

    source: str
    below: str = ""
    caption: str | None = None
    caption_column: str | None = None
    splits: Splits = {"train": None}
    seed: int = Field(0, ge=0)


def prepare(config: Config, output: Path) -> None:
    """Writes the splits.

    Raises:
        DataError: If an image has no caption, or a caption no image.
    """
    with open_members(Path(config.source)) as members:
        pictures = find_pictures(config, members)
        write_splits(pictures, config.splits, config.seed, output, label=members.label)


def find_pictures(config: Config, members: Members) -> list[Picture]:
    """Every image with its caption."""
    below = f"{config.below.strip('/')}/" if config.below else ""
    names = [name for name in members.names if name.startswith(below)]
    captions: dict[str, str] = {}
    for table in (name for name in names if PurePosixPath(name).name in TABLES):
        for number, row in enumerate(_rows(members, table)):
            file_name, caption = _caption(config, members, f"{members.label}: {table}: row {number}", row)
            name = (PurePosixPath(table).parent / file_name).as_posix()
            if not is_inside(file_name) or name not in members.sizes:
                raise DataError(f"{members.label}: {table}: row {number}: there is no image '{file_name}' beside it")
            captions[name] = caption
    images = [name for name in names if name.lower().endswith(SUFFIXES)]
    if not captions:
        if config.caption is None:
            raise DataError(f"{members.label}: no {' or '.join(TABLES)} in '{below}'; add one, or give 'caption'")
        captions = {name: config.caption.replace("{label}", _label(name)) for name in images}
    bare = sorted(set(images) - set(captions))
    if bare:
        raise DataError(f"{members.label}: {len(bare)} images have no caption, the first is '{bare[0]}'; write one")
    return [Picture(name, text, partial(members.read, name)) for name, text in sorted(captions.items())]


def _label(name: str) -> str:
    return PurePosixPath(name).parent.name.replace("_", " ")


def _rows(members: Members, table: str) -> list[dict[str, Any]]:
    """A table's rows by column."""
    content = members.read(table)
    try:
        if table.endswith(".parquet"):
            import pyarrow.parquet

            rows: list[dict[str, Any]] = pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()
            return rows
        text = content.decode("utf-8-sig")
        if table.endswith(".jsonl"):
            return [dict(json.loads(line)) for line in text.splitlines() if line.strip()]
        return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except (csv.Error, TypeError, ValueError) as error:  # pyarrow's ArrowInvalid and UnicodeDecodeError are ValueErrors
        raise DataError(f"{members.label}: {table} is no whole table in UTF-8 ({error}); export it again") from None


def _caption(config: Config, members: Members, where: str, row: dict[str, Any]) -> tuple[str, str]:
    """(file name, caption) of a row: a missing column is an error, never an empty caption."""
    columns = [config.caption_column] if config.caption_column else CAPTION_COLUMNS
    found = [column for column in columns if isinstance(row.get(column), str)]
    if not found or not isinstance(row.get("file_name"), str):
        raise DataError(
            f"{where}: wanted 'file_name' and one of {list(columns)}, got {[str(key) for key in row]};"
            " name the column of captions in 'caption_column'"
        )
    return row["file_name"], row[found[0]]
