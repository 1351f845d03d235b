"""Any folder or archive of images in Hugging Face's ``imagefolder`` conventions, such as one of your own.

Captions come from its tables, see :mod:`resalign.data.captions`; without one, from ``caption``, in which ``{label}`` is
the name of the image's folder. Examples are the DreamBooth dog (five photographs, one caption), ArtBench-10 (an archive
with one folder per style) and VGGFace2-HQ.

Source: https://huggingface.co/docs/datasets/image_dataset, "ImageFolder".
"""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath

from pydantic import Field, field_validator

from resalign.config.captions import CAPTION_TABLES
from resalign.config.references import inside_path
from resalign.config.strict import Strict
from resalign.data.captions import Caption, caption_tables, is_image, log_what_is_left_out, read_captions
from resalign.data.image_sets import Picture, Splits, write_splits
from resalign.data.members import Members, composed, open_members
from resalign.errors import DataError

INPUTS = ("source",)


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

    @field_validator("below")
    @classmethod
    def _inside(cls, below: str) -> str:
        return below and inside_path(below)


def prepare(config: Config, output: Path) -> None:
    """Writes the splits.

    Raises:
        DataError: If an image has no caption, or a caption no image.
    """
    with open_members(Path(config.source)) as members:
        pictures = find_pictures(config, members.below(config.below))
        write_splits(pictures, config.splits, config.seed, output, label=members.label)


def find_pictures(config: Config, members: Members) -> list[Picture]:
    """Every image with its caption."""
    captions = read_captions(members, column=config.caption_column)
    images = [name for name in members.names if is_image(name)]
    if not caption_tables(members):
        if config.caption is None:
            tables = " or ".join(CAPTION_TABLES)
            raise DataError(f"{members.label}: no {tables} in '{config.below}'; add one, or give 'caption'")
        captions = [Caption(name, config.caption.replace("{label}", _label(name)), name) for name in images]
    bare = sorted(set(images) - {caption.image for caption in captions})
    if bare:
        raise DataError(f"{members.label}: {len(bare)} images have no caption, the first is '{bare[0]}'; write one")
    log_what_is_left_out(members, captions)
    ordered = sorted((caption.image, caption.text) for caption in captions)
    return [Picture(name, text, partial(members.read, name)) for name, text in ordered]


def _label(name: str) -> str:
    """The folder's name as words, in composed Unicode."""
    return composed(PurePosixPath(name).parent.name.replace("_", " "))
