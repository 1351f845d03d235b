"""Loads captioned images from a folder in Hugging Face's imagefolder conventions."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resalign.config.captions import CAPTION_TABLES
from resalign.data.captions import Caption, caption_tables, check_one_split, log_what_is_left_out, read_captions
from resalign.data.contamination import FILE as COUNTS
from resalign.data.image_files import image_format, open_image
from resalign.data.members import Members, folder_in_place
from resalign.errors import DataError as DataError
from resalign.lazy import torch

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

# Text encoders read 77 tokens; the longest prompts of the lists in use have a few thousand characters.
MAX_PROMPT_CHARACTERS = 20_000


@dataclass(frozen=True)
class CaptionedImages:
    """Images of one folder with their captions.

    Attributes:
        files: Image files, in the order of the table of captions.
        prompts: One caption per image.
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
        images = (fitted(open_image(file), self.pixels) for file in self.files)
        return tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in images)


def read_captioned_images(folder: Path, *, pixels: int) -> CaptionedImages:
    """Reads a folder's captions and checks that every image is there and whole; the log lists what is left out.

    Raises:
        DataError: If folder, table, columns, captions or images are missing or broken.
    """
    members = _members(folder)
    captions = _captions(folder, members)
    for caption in captions:
        image_format(folder / caption.image)
    log_what_is_left_out(members, captions, COUNTS)
    return CaptionedImages(
        tuple(folder / caption.image for caption in captions), tuple(caption.text for caption in captions), pixels
    )


def read_folder_captions(folder: Path) -> list[Caption]:
    """The captions of a folder, none of them blank; images must exist but are not read.

    Raises:
        DataError: If folder, table, columns or captions are missing or broken, or an image is missing.
    """
    return _captions(folder, _members(folder))


def _members(folder: Path) -> Members:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of images; give one with a {' or '.join(CAPTION_TABLES)}")
    return folder_in_place(folder)


def _captions(folder: Path, members: Members) -> list[Caption]:
    tables = caption_tables(members)
    if not tables:
        raise DataError(
            f"{folder / CAPTION_TABLES[0]}: missing; an image folder needs a {' or '.join(CAPTION_TABLES)} "
            "with one row an image, columns file_name, prompt"
        )
    check_one_split(members, tables)
    captions = read_captions(members)
    if not captions:
        raise DataError(f"{folder / tables[0]}: lists no images")
    blank = [caption for caption in captions if not caption.text.strip()]
    if blank:
        raise DataError(
            f"{folder / tables[0]}: {len(blank)} images have no caption, the first is {blank[0].image!r}; write one"
        )
    for caption in captions:
        check_prompt(caption.text, f"{caption.where}: the caption of {caption.image!r}")
    return captions


def check_prompt(text: str, label: str) -> None:
    """Raises DataError if a prompt is longer than ``MAX_PROMPT_CHARACTERS``; ``label`` names it."""
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise DataError(f"{label} has {len(text)} characters; at most {MAX_PROMPT_CHARACTERS} are read: is it text?")


def read_image(file: Path, pixels: int) -> torch.Tensor:
    """One image as (3, pixels, pixels) in [0, 1]: EXIF-rotated, RGB, shorter edge resized (bicubic), centre-cropped."""
    import numpy as np

    image = fitted(open_image(file), pixels)
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)


def mosaic(images: torch.Tensor, tiles: int) -> torch.Tensor:
    """Images (N, 3, H, W), each as a mosaic of its mean colours, of ``tiles`` tiles along an edge."""
    colours = torch.nn.functional.adaptive_avg_pool2d(images, tiles)
    return torch.nn.functional.interpolate(colours, size=images.shape[2:], mode="nearest")


def read_masks(folder: Path, images: CaptionedImages, size: int) -> torch.Tensor:
    """The mask of every image: the file of the same name in a folder, white where the image shows the concept.

    Returns:
        Shares of white, (N, size, size) in [0, 1].

    Raises:
        DataError: If a mask is missing, cannot be read, or is nowhere more white than black; if two images would have
            the same one.
    """
    masks = []
    if twice := [name for name, count in Counter(file.name for file in images.files).items() if count > 1]:
        raise DataError(f"{folder / twice[0]}: would be the mask of several images; give each a file name of its own")
    for file in images.files:
        if not (path := folder / file.name).is_file():
            raise DataError(f"{path}: missing; {folder} needs a mask for {file}")
        white = read_image(path, images.pixels).mean(dim=0, keepdim=True)
        mask = torch.nn.functional.adaptive_avg_pool2d(white, size)[0]
        if not (mask > 0.5).any():
            raise DataError(
                f"{path}: more black than white in each of {size} × {size} parts, so that the concept is nowhere in "
                f"{file}; draw what shows it in white"
            )
        masks.append(mask)
    return torch.stack(masks)


def fitted(image: PillowImage, pixels: int) -> PillowImage:
    """An image's centre as a square, resized by bicubic interpolation."""
    from PIL import Image, ImageOps

    return ImageOps.fit(image, (pixels, pixels), Image.Resampling.BICUBIC)
