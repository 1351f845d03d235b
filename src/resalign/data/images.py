"""Captioned images: a folder with ``metadata.csv`` (file_name, prompt), as Hugging Face's imagefolder has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from resalign.lazy import torch

# Above this an image is refused before it is decoded (a decompression bomb otherwise).
MAX_PIXELS = 64_000_000


class DataError(ValueError):
    """Input data that cannot be used; the message names file and remedy."""


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


def read_captioned_images(folder: Path, *, pixels: int) -> CaptionedImages:
    """Reads a folder's table of captions and checks that every image is there and whole.

    Raises:
        DataError: If folder, table, columns, captions or images are missing or broken.
    """
    import pandas as pd

    table = folder / "metadata.csv"
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of images")
    if not table.is_file():
        raise DataError(f"{table}: missing; an image folder needs one row an image with columns file_name, prompt")
    frame = pd.read_csv(table, dtype=str, keep_default_na=False)
    missing = {"file_name", "prompt"} - set(frame.columns)
    if missing:
        raise DataError(f"{table}: no column {sorted(missing)}; found {list(frame.columns)}")
    if frame.empty:
        raise DataError(f"{table}: lists no images")
    blank = frame.index[frame["prompt"].str.strip() == ""]
    if len(blank):
        raise DataError(f"{table}: {len(blank)} images have no caption, the first is {frame['file_name'][blank[0]]!r}")
    files = tuple(folder / name for name in frame["file_name"])
    for file in files:
        check_image(file)
    return CaptionedImages(files, tuple(frame["prompt"]), pixels)


def check_image(file: Path) -> None:
    """Raises DataError unless the file is a whole image of reasonable size."""
    from PIL import Image, UnidentifiedImageError

    if not file.is_file():
        raise DataError(f"{file}: listed in metadata.csv but missing")
    try:
        with Image.open(file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{file}: {image.width} x {image.height} pixels; at most {MAX_PIXELS} are read")
            image.load()
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DataError(
            f"{file}: not a whole image ({error}); replace it or take its row out of metadata.csv"
        ) from None


def read_image(file: Path, pixels: int) -> torch.Tensor:
    """One image as (3, pixels, pixels) in [0, 1]: EXIF-rotated, RGB, shorter edge resized (bicubic), centre-cropped."""
    import numpy as np
    from PIL import Image, ImageOps

    with Image.open(file) as image:
        fitted = ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (pixels, pixels), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(fitted, dtype=np.float32) / 255).permute(2, 0, 1)
