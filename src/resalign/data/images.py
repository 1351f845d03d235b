"""Captioned images: a folder with ``metadata.csv`` (file_name, prompt), as Hugging Face's imagefolder has it."""

from __future__ import annotations

import csv
import functools
import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from resalign.data.errors import DataError
from resalign.lazy import torch

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

# Above this an image is refused before it is decoded (a decompression bomb otherwise).
MAX_PIXELS = 64_000_000
# Formats that Pillow decodes by itself, and their suffixes; for EPS, say, it starts another program.
FORMATS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif", "GIF": ".gif"}
# Text encoders read 77 tokens; the longest prompts of the lists in use have a few thousand characters.
MAX_PROMPT_CHARACTERS = 20_000


@dataclass(frozen=True)
class CaptionedImages:
    """Images of one folder with their captions.

    Attributes:
        files: Image files, in the order of ``metadata.csv``.
        prompts: One caption an image.
        pixels: Edge of the square that images are resized and cropped to.
    """

    files: tuple[Path, ...]
    prompts: tuple[str, ...]
    pixels: int

    def __len__(self) -> int:
        """Number of images."""
        return len(self.files)

    def load(self) -> torch.Tensor:
        """All images, (N, 3, pixels, pixels) in [-1, 1]."""
        return torch.stack([read_image(file, self.pixels) for file in self.files]) * 2 - 1

    @functools.cached_property
    def hashes(self) -> tuple[str, ...]:
        """sha256 of every image's pixels as :meth:`load` has them: what is equal in training, whatever its file is."""
        return tuple(hashlib.sha256(_fitted(file, self.pixels).tobytes()).hexdigest() for file in self.files)


def read_captioned_images(folder: Path, *, pixels: int) -> CaptionedImages:
    """Reads a folder's table of captions and checks that every image is there and whole.

    Raises:
        DataError: If folder, table, columns, captions or images are missing or broken.
    """
    table = folder / "metadata.csv"
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of images; give one with a metadata.csv")
    if not table.is_file():
        raise DataError(f"{table}: missing; an image folder needs one row an image with columns file_name, prompt")
    rows = read_captions(table)
    if not rows:
        raise DataError(f"{table}: lists no images")
    blank = [name for name, prompt in rows if not prompt.strip()]
    if blank:
        raise DataError(f"{table}: {len(blank)} images have no caption, the first is {blank[0]!r}; write one")
    for name, prompt in rows:
        check_prompt(prompt, f"{table}: the caption of {name!r}")
        if not is_inside(name):
            raise DataError(f"{table}: file_name {name!r} leads out of its folder; move the image into {folder}")
    files = tuple(folder / name for name, _ in rows)
    for file in files:
        check_image(file)
    return CaptionedImages(files, tuple(prompt for _, prompt in rows), pixels)


def read_captions(table: Path) -> list[tuple[str, str]]:
    """(file name, caption) of every row."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            header, rows = list(reader.fieldnames or ()), list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{table}: not a whole CSV table in UTF-8 ({error}); export it again") from None
    missing = sorted({"file_name", "prompt"} - set(header))
    if missing:
        raise DataError(f"{table}: no column {missing}; found {header}; expected columns file_name, prompt")
    for number, row in enumerate(rows):
        # csv files what a row has too much under the key None, and None as what it has too little.
        if None in row or None in row.values():
            raise DataError(
                f"{table}: row {number} has not {len(header)} fields as the header of this CSV has; quote commas"
            )
    return [(row["file_name"], row["prompt"]) for row in rows]


def is_inside(name: str) -> bool:
    """Whether a name from a table or an archive stays below the folder that it is relative to."""
    path = PurePosixPath(name)
    plain = bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    return plain and "\\" not in name and "\0" not in name and path.parts[0][1:2] != ":"


def check_prompt(text: str, label: str) -> None:
    """Raises DataError if a prompt is longer than any can be; ``label`` says which it is."""
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise DataError(f"{label} has {len(text)} characters; at most {MAX_PROMPT_CHARACTERS} are read: is it text?")


def check_image(file: Path) -> None:
    """Raises DataError unless the file is a whole image of reasonable size."""
    if not file.is_file():
        raise DataError(f"{file}: listed in metadata.csv but missing")
    with file.open("rb") as stream:
        image_format(stream, str(file), "replace it or take its row out of metadata.csv")


def image_format(stream: BinaryIO, label: str, remedy: str) -> str:
    """Format of a whole image of reasonable size, a key of :data:`FORMATS`.

    Raises:
        DataError: With ``label`` and ``remedy`` if it is anything else.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        # Pillow warns of a bomb before its size can be read here.
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            image = Image.open(stream, formats=tuple(FORMATS))
        with image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{label}: {image.width} x {image.height} pixels; at most {MAX_PIXELS} are read")
            image.load()
            return str(image.format)
    except Image.DecompressionBombError as error:
        raise DataError(f"{label}: {error}; at most {MAX_PIXELS} are read") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{label}: not a whole image of {', '.join(FORMATS)} ({error}); {remedy}") from None


def read_image(file: Path, pixels: int) -> torch.Tensor:
    """One image as (3, pixels, pixels) in [0, 1]: EXIF-rotated, RGB, shorter edge resized (bicubic), centre-cropped."""
    import numpy as np

    return torch.from_numpy(np.asarray(_fitted(file, pixels), dtype=np.float32) / 255).permute(2, 0, 1)


def _fitted(file: Path, pixels: int) -> PillowImage:
    """One image as training sees it, 8 bits a channel."""
    from PIL import Image, ImageOps

    with Image.open(file, formats=tuple(FORMATS)) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
        return ImageOps.fit(upright, (pixels, pixels), Image.Resampling.BICUBIC)
