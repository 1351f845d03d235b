"""Reads the captions of an image folder or archive in Hugging Face's ``imagefolder`` conventions.

Captions are in ``metadata.csv``, ``metadata.jsonl`` or ``metadata.parquet``, one row per image, with its ``file_name``,
relative to the folder that the table lies in, and its caption in a column ``prompt``, ``text`` or ``caption``. Folders
inside may have tables of their own.

Source: https://huggingface.co/docs/datasets/image_dataset, "ImageFolder".
Deviation: there the last row of several for one image counts; here they are refused, as is a caption that is no text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from resalign.config.captions import CAPTION_TABLES
from resalign.config.references import is_inside
from resalign.data.image_files import SUFFIXES
from resalign.data.members import Members, log_left_out
from resalign.data.tables import Table, parse_table
from resalign.errors import DataError

COLUMNS = ("prompt", "text", "caption")
# `datasets` takes folders of these names for splits of their own; whoever means all of them prepares a set.
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "dev", "val"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}


@dataclass(frozen=True)
class Caption:
    """An image's caption.

    Attributes:
        image: The image's name among the files.
        text: The caption; it may be blank.
        where: Table and row, for messages.
    """

    image: str
    text: str
    where: str


def read_captions(members: Members, *, column: str | None = None) -> list[Caption]:
    """All captions, in the order of the tables and their rows; an empty list if there is no table.

    Args:
        members: The folder's or the archive's files.
        column: The tables' column of captions; None for the first of :data:`COLUMNS` that a table has.

    Raises:
        DataError: Naming table and row, if a caption is no text, if an image is missing or has two captions, or if two
            tables lie in one folder.
    """
    by_image: dict[str, Caption] = {}
    for name in caption_tables(members):
        for caption in _captions(members, name, column):
            before = by_image.setdefault(caption.image, caption)
            if before is not caption:
                raise DataError(
                    f"{caption.where} and {before.where.removeprefix(f'{members.label}/')} are both for "
                    f"'{caption.image}'; keep one caption an image"
                )
    return list(by_image.values())


def caption_tables(members: Members) -> list[str]:
    """Names of the tables of captions.

    Raises:
        DataError: If two of them lie in one folder: which of them applies is ambiguous.
    """
    tables = [name for name in members.names if PurePosixPath(name).name in CAPTION_TABLES]
    by_folder: dict[PurePosixPath, str] = {}
    for name in tables:
        other = by_folder.setdefault(PurePosixPath(name).parent, name)
        if other is not name:
            raise DataError(f"{members.label}: has both '{other}' and '{name}'; keep the one that holds")
    return tables


def check_one_split(members: Members, tables: list[str]) -> None:
    """Refuses tables in folders for training and for testing: which images are meant is ambiguous."""
    folders = {name: [part for part in PurePosixPath(name).parts[:-1] if part in SPLITS] for name in tables}
    splits = {SPLITS[parts[0]]: parts[0] for parts in folders.values() if parts}
    if len(splits) > 1:
        raise DataError(
            f"{members.label}: holds the splits {sorted(splits.values())}, which are not read as one set of images; "
            "name the folder of one of them"
        )


def log_what_is_left_out(members: Members, captions: list[Caption], known: str = "") -> None:
    """Logs which files are not read as images: those without a row, and those of other kinds except ``known``."""
    read = {caption.image for caption in captions}
    rest = {name for name in members.sizes if name not in read and PurePosixPath(name).name not in CAPTION_TABLES}
    images = {name for name in rest if is_image(name)}
    log_left_out(members.label, "images without a row in a table", images)
    log_left_out(members.label, "files that are no images by their names", rest - images - {known})


def is_image(name: str) -> bool:
    """Whether a file has the suffix of an image format that is read."""
    return name.lower().endswith(SUFFIXES)


def _captions(members: Members, name: str, column: str | None) -> list[Caption]:
    table = parse_table(f"{members.label}/{name}", members.read(name))
    captions = _caption_column(table, column)
    folder = PurePosixPath(name).parent
    rows = []
    for number in range(len(table.rows)):
        where = f"{table.label}: row {number}"
        file_name = table.text(number, "file_name").replace("\\", "/")
        if not is_inside(file_name):
            raise DataError(
                f"{where}: file_name {file_name!r} leads out of its folder; move the image into {members.label}"
            )
        image = members.find((folder / file_name).as_posix())
        if image is None:
            raise DataError(f"{where}: there is no image '{file_name}' beside it; put it there or take its row out")
        rows.append(Caption(image, table.text(number, captions), where))
    return rows


def _caption_column(table: Table, column: str | None) -> str:
    allowed = (column,) if column else COLUMNS
    present = [name for name in allowed if name in table.columns]
    if not present or "file_name" not in table.columns:
        raise DataError(
            f"{table.label}: wanted the columns 'file_name' and one of {list(allowed)}, got {list(table.columns)}; "
            "rename them, or name a prepared set's in 'caption_column'"
        )
    return present[0]
