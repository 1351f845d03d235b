"""Writes prepared image sets: checked images with captions in disjoint, seeded splits, one folder per split."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from resalign.config.references import InsidePath, is_inside
from resalign.data.image_files import FORMATS, image_format
from resalign.data.images import check_prompt
from resalign.errors import DataError
from resalign.files import whole
from resalign.tensors.seeds import derive_seed

# How many images each split has; None for all that are left. The folders are named so.
Splits = dict[InsidePath, Annotated[int, Field(gt=0)] | None]


@dataclass(frozen=True)
class Picture:
    """An image that is not yet read.

    Attributes:
        key: Its name at its origin, which decides its place in a seeded order.
        prompt: Its caption.
        read: Its file's content.
    """

    key: str
    prompt: str
    read: Callable[[], bytes]


def seeded_order(keys: Iterable[str], *seed: str | int) -> list[str]:
    """Sorts keys by a hash of the seed and the key itself, so that other keys do not influence their order.

    A growing set keeps the order of its old keys, and a larger choice begins with the smaller one.
    """
    return sorted(keys, key=lambda key: (derive_seed("choice", *seed, key), key))


def write_splits(
    pictures: Sequence[Picture],
    splits: Splits,
    seed: int,
    output: Path,
    *,
    label: str,
    remedy: str = "lower their sizes",
) -> None:
    """Writes disjoint splits, one folder each below ``output``.

    Args:
        pictures: What there is; keys are unique.
        splits: How many images each split has; at most one has the rest.
        seed: Decides which image is in which split, and their order.
        output: Where the folders are made.
        label: What the pictures come from, for messages.
        remedy: What to do about too few of them.

    Raises:
        DataError: If there are too few pictures, or one of them is broken.
    """
    by_key = {picture.key: picture for picture in pictures}
    if len(by_key) < len(pictures):
        twice = [key for key, times in Counter(picture.key for picture in pictures).items() if times > 1]
        raise DataError(
            f"{label}: {len(pictures) - len(by_key)} images have another's name, the first is '{twice[0]}'; make names "
            "unique"
        )
    sizes = {name: size for name, size in splits.items() if size is not None}
    rest = [name for name in splits if name not in sizes]
    if not splits or len(rest) > 1 or not all(is_inside(name) for name in splits):
        raise DataError(f"{label}: splits {splits}: give folder names with sizes, and at most one null, for the rest")
    needed = sum(sizes.values()) + len(rest)
    if len(by_key) < needed:
        raise DataError(f"{label}: the splits {sizes} need {needed} images, there are {len(by_key)}; {remedy}")
    sizes |= dict.fromkeys(rest, len(by_key) - sum(sizes.values()))
    order = seeded_order(by_key, seed)
    for name in splits:
        chosen, order = order[: sizes[name]], order[sizes[name] :]
        write_images([by_key[key] for key in chosen], output / name, label=label)


def write_images(pictures: Sequence[Picture], folder: Path, *, label: str) -> None:
    """Writes unchanged image files under numbered names, and their captions into ``metadata.csv``.

    Raises:
        DataError: Naming the image that is broken, too large, or has no caption or one that is too long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    width = len(str(max(len(pictures) - 1, 0)))
    for number, picture in enumerate(pictures):
        where = f"{label}: '{picture.key}'"
        if not picture.prompt.strip():
            raise DataError(f"{where} has no caption; write one, or leave the image out")
        check_prompt(picture.prompt, f"{where}: its caption")
        content = picture.read()
        kind = image_format(content, where, remedy="fetch it again, or leave it out")
        name = f"{number:0{width}d}{FORMATS[kind]}"
        (folder / name).write_bytes(content)
        rows.append((name, picture.prompt, picture.key))
    # Last: a folder with its table is a whole one.
    with whole(folder / "metadata.csv") as part, part.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("file_name", "prompt", "source"), *rows])
