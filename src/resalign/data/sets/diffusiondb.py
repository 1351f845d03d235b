"""DiffusionDB: images that users of Stable Diffusion made, with their prompts, without those that look unsafe.

Source: Wang 2022, arXiv 2210.14896; ``metadata.parquet`` (image_name, prompt, part_id, image_nsfw, prompt_nsfw and
more) and ``images/part-%06d.zip`` with 1,000 images and a JSON table each. A score of 2.0 marks a blurred image.

Deviation: which images ResAlign took ("a filtered subset") is not published: here a seeded choice below thresholds.
"""

from __future__ import annotations

import contextlib
import re
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from resalign.config.references import InsidePath
from resalign.config.strict import Strict
from resalign.data.image_sets import Picture, Splits, write_splits
from resalign.data.images import MAX_PROMPT_CHARACTERS
from resalign.data.members import Members, open_members
from resalign.data.tables import text_of
from resalign.errors import DataError
from resalign.tracking import log

INPUTS = ("source",)
REMEDY = "lower their sizes, or name more parts in the asset's files"
COLUMNS = ("image_name", "prompt", "part_id", "image_nsfw", "prompt_nsfw")


class Config(Strict):
    """Which images count as safe, and how they are split.

    Attributes:
        source: Folder with the table and the parts, as ``asset``.
        table: The table's name.
        max_image_nsfw: Images of a larger score are left out. Not published.
        max_prompt_nsfw: Likewise, by their prompt's score.
        splits: Images of each folder to make; null for the rest.
        seed: Decides which image is in which split.
    """

    source: str
    table: InsidePath = "metadata.parquet"
    max_image_nsfw: float = Field(0.1, ge=0, lt=2)
    max_prompt_nsfw: float = Field(0.1, ge=0, lt=2)
    splits: Splits = {"pool": 500, "train": 150, "heldout": 50}
    seed: int = Field(0, ge=0)


def prepare(config: Config, output: Path) -> None:
    """Writes the splits from the parts that are there.

    Raises:
        DataError: If the table or the parts are missing, or an image of the table is not in its part.
    """
    folder = Path(config.source)
    parts = {int(match[1]): path for path in folder.rglob("*.zip") if (match := re.search(r"part-(\d{6})$", path.stem))}
    if not parts:
        raise DataError(f"{folder}: no images/part-000001.zip or other part; name one in the asset's files")
    with contextlib.ExitStack() as opened:
        members = {part: opened.enter_context(open_members(path)) for part, path in sorted(parts.items())}
        pictures = [
            Picture(f"{part}/{name}", prompt, partial(members[part].read, name))
            for part, name, prompt in _safe_rows(config, folder / config.table, members)
        ]
        write_splits(pictures, config.splits, config.seed, output, label=str(folder), remedy=REMEDY)


def _safe_rows(config: Config, table: Path, members: dict[int, Members]) -> list[tuple[int, str, str]]:
    """(part, image, prompt) of the images that are here, below both thresholds and captioned."""
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(table, columns=list(COLUMNS), filters=[("part_id", "in", sorted(members))])
        rows = rows.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{table}: no table with the columns {', '.join(COLUMNS)} ({error}); fetch it again") from None
    lacking = [row["image_name"] for row in rows if row["image_name"] not in members[row["part_id"]].sizes]
    if lacking:
        raise DataError(f"{table}: lists {len(lacking)} images that are not in their part, such as '{lacking[0]}'")
    safe = [row for row in rows if _is_safe(config, row)]
    captioned = [
        (row["part_id"], row["image_name"], text)
        for row in safe
        if (text := _prompt(row, table)).strip() and len(text) <= MAX_PROMPT_CHARACTERS
    ]
    log.info(
        "%s: left out: %d images that are not known to be safe, %d whose prompt is empty or longer than %d characters",
        *(table, len(rows) - len(safe), len(safe) - len(captioned), MAX_PROMPT_CHARACTERS),
    )
    return captioned


def _is_safe(config: Config, row: dict[str, Any]) -> bool:
    """Whether an image is below both thresholds; a score that is missing or NaN is below none."""
    scores = {"image_nsfw": config.max_image_nsfw, "prompt_nsfw": config.max_prompt_nsfw}
    return all(row[name] is not None and row[name] <= most for name, most in scores.items())


def _prompt(row: dict[str, Any], table: Path) -> str:
    """A prompt, a user's text: it may be missing."""
    return "" if row["prompt"] is None else text_of(row["prompt"], f"{table}: the prompt of '{row['image_name']}'")
