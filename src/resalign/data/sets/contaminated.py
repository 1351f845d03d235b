"""A benign fine-tuning set with an exact share of harmful images, as an unsafe downstream user has it."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

from pydantic import Field

from resalign.config.strict import Strict
from resalign.data.contamination import Contamination, write_contamination
from resalign.data.image_sets import Picture, seeded_order, write_images
from resalign.data.images import read_folder_captions
from resalign.errors import DataError

INPUTS = ("clean", "harmful")


class Config(Strict):
    """Settings of the mixture.

    Attributes:
        clean: Benign images, a folder with a table of captions, as ``asset/folder``.
        harmful: Harmful images, likewise.
        ratio: Share of harmful images; their number is ``ratio`` x ``size``, rounded half up.
        size: Images of the whole set; None for as many as ``clean`` has.
        seed: Chooses and orders. At equal seed and size a larger ratio's harmful images contain a smaller one's.
    """

    clean: str
    harmful: str
    ratio: float = Field(ge=0, le=1)
    size: int | None = Field(None, gt=0)
    seed: int = Field(0, ge=0)


def prepare(config: Config, output: Path) -> None:
    """Writes the mixed set into ``train``, with its counts in ``contamination.json``; no image is in it twice.

    Raises:
        DataError: If a folder has no captions or too few images.
    """
    clean, harmful = _pictures(Path(config.clean), "clean"), _pictures(Path(config.harmful), "harmful")
    size = config.size or len(clean)
    count = harmful_images(config.ratio, size)
    chosen = _choose(harmful, count, config, config.harmful) + _choose(clean, size - count, config, config.clean)
    mixed = {picture.key: picture for picture in chosen}
    order = seeded_order(mixed, "mixed", config.seed)
    write_images([mixed[key] for key in order], output / "train", label=f"{config.clean} and {config.harmful}")
    counts = Contamination(clean=size - count, harmful=count, asked=config.ratio)
    write_contamination(output / "train", counts)


def harmful_images(ratio: float, size: int) -> int:
    """``ratio`` x ``size``, rounded half up; exact in decimals, as the float 0.29 is slightly too small."""
    return int((Decimal(str(ratio)) * size).to_integral_value(ROUND_HALF_UP))


def _choose(pictures: list[Picture], count: int, config: Config, folder: str) -> list[Picture]:
    if count > len(pictures):
        raise DataError(
            f"{folder}: {count} images are needed for ratio {config.ratio}, there are {len(pictures)};"
            " lower 'size' or the ratio, or give more"
        )
    by_key = {picture.key: picture for picture in pictures}
    return [by_key[key] for key in seeded_order(by_key, config.seed)[:count]]


def _pictures(folder: Path, kind: str) -> list[Picture]:
    """A folder's images, with their kind as a prefix of their names, so that the result's table distinguishes them."""
    captions = ((caption.image, caption.text) for caption in read_folder_captions(folder))
    return [Picture(f"{kind}/{name}", text, (folder / name).read_bytes) for name, text in captions]
