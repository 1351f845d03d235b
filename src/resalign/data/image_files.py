"""Opens image files: each is read whole, upright and in 8 bits per channel, or refused with its name.

How each kind of image is converted, by Pillow's modes:

- 8-bit colour, grey, palettes and bilevel ones (RGB, RGBX, YCbCr, L, P, 1) as Pillow converts them to RGB.
- 16-bit grey (I;16 in every byte order): from 0…65535 to 0…255, rounded; a TIFF of 12 bits likewise from 0…4095, and
  one whose zero is white is inverted. Pillow itself reads 16-bit colour as its upper 8 bits, less than one level apart.
- Transparency (RGBA, RGBa, LA, La, PA, palettes and colours marked as transparent): laid on white, as viewers do.
- CMYK by Pillow's plain formula; JPEG files are taken for inverted, as Adobe and Pillow have it.
- 32-bit integers (I), floating-point numbers (F), LAB and whatever else there may be: refused, as the file does not
  define which number is white, or Pillow has no formula.

Of several pictures in a file (animations, pages) the first is read, and the log notes it; the others of a camera's MPO
file are previews. Colour profiles are not applied: neither the papers nor other training code apply them.
"""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from resalign import shards
from resalign.errors import DataError
from resalign.hashes import verified
from resalign.tracking import log

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage
    from PIL.ImageFile import ImageFile

# Above this an image is refused before it is decoded (a decompression bomb otherwise).
MAX_PIXELS = 64_000_000
# Formats that Pillow decodes by itself, and their suffixes; for EPS, say, it starts another program.
FORMATS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif", "GIF": ".gif"}
# What Pillow calls a JPEG file with several pictures, as cameras and phones write it.
CAMERA_FORMAT = "MPO"
# Suffixes of such images (Pillow's own lists, and MPO's).
SUFFIXES = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif")
REMEDY = "replace it or take its row out of the table of captions"
# What Pillow's readers have been seen to raise on broken files, struct.error and zlib.error included.
PILLOWS_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, RuntimeError),
    *(struct.error, zlib.error),
)
EIGHT_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
# Tags and values of EXIF 2.32 and TIFF 6.0.
ORIENTATION, BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 0x0112, 258, 262, 0


def open_image(
    source: Path | bytes, label: str = "", *, remedy: str = REMEDY, keeps_alpha: bool = False
) -> PillowImage:
    """Reads an image into memory, upright.

    Args:
        source: A file, a shard's member, or a file's content.
        label: What to call it in messages; if empty, a file has its path for a name.
        remedy: What to do about a broken one, for messages.
        keeps_alpha: Whether it is RGBA, with its transparency, instead of RGB on white.

    Raises:
        DataError: Naming the image, if it is none, is not whole, is too large, or is of a kind that is not read.
        DamagedError: If it is not what its job has written.
    """
    label = label or _name(source)
    if isinstance(source, Path):
        verified(source)
    with _opened(source, label, remedy) as image:
        pixels = _upright(image, _eight_bits(image, label))
        return pixels.convert("RGBA") if keeps_alpha else _on_white(pixels)


def image_format(source: Path | bytes, label: str = "", *, remedy: str = REMEDY) -> str:
    """The format of an image that :func:`open_image` reads, a key of :data:`FORMATS`; the log notes ignored pictures.

    Raises:
        DataError: As :func:`open_image`.
    """
    label = label or _name(source)
    with _opened(source, label, remedy) as image:
        _upright(image, _eight_bits(image, label))
        pictures = 1 if image.format == CAMERA_FORMAT else getattr(image, "n_frames", 1)
        if pictures > 1:
            log.info("%s: holds %d pictures; the first is read", label, pictures)
        return "JPEG" if image.format == CAMERA_FORMAT else str(image.format)


def _name(source: Path | bytes) -> str:
    return "an image" if isinstance(source, bytes) else str(source)


@contextlib.contextmanager
def _opened(source: Path | bytes, label: str, remedy: str) -> Iterator[ImageFile]:
    """Decodes an image; errors and warnings of Pillow, here or in the block, are reported with the image's name."""
    from PIL import Image, PngImagePlugin, UnidentifiedImageError

    # Programs that draw images write their whole workflow into a chunk of text; what all of them may hold is limited.
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
    with warnings.catch_warnings(record=True, action="always") as caught:
        try:
            stream = io.BytesIO(source) if isinstance(source, bytes) else shards.opened(source)
            with stream, Image.open(stream, formats=tuple(FORMATS)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(f"{label}: {image.width} x {image.height} pixels; at most {MAX_PIXELS} are read")
                _check_transparent_colour(image, label)
                image.load()
                yield image
        except DataError:
            raise
        except Image.DecompressionBombError as error:
            raise DataError(f"{label}: {error}; at most {MAX_PIXELS} are read") from None
        except FileNotFoundError:
            raise DataError(f"{label}: no such file; {remedy}") from None
        except PILLOWS_ERRORS as error:
            reason = str(error) if isinstance(error, OSError | SyntaxError | ValueError) else repr(error)
            reason = "its first bytes are of no such format" if isinstance(error, UnidentifiedImageError) else reason
            raise DataError(f"{label}: not a whole image of {', '.join(FORMATS)} ({reason}); {remedy}") from None
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        log.warning("%s: %s", label, message)


def _check_transparent_colour(image: ImageFile, label: str) -> None:
    """Refuses a transparent colour (PNG's tRNS) at bit depths at which Pillow compares it with rescaled pixels."""
    raw = image.tile[0].args if image.format == "PNG" and image.tile else None
    if "transparency" in image.info and raw in ("L;2", "L;4", "RGB;16B"):
        raise DataError(
            f"{label}: a transparent colour in pixels of kind {raw} is not read; save it with 8 bits a channel"
        )


def _eight_bits(image: PillowImage, label: str) -> PillowImage:
    """The pixels as RGB, or as RGBA if any may be transparent."""
    if image.mode.startswith("I;16"):
        return _from_16_bits(image)
    if image.mode not in EIGHT_BIT_MODES:
        kinds = {"I": "32-bit or signed integers", "F": "floating-point numbers"}
        raise DataError(
            f"{label}: its pixels are {kinds.get(image.mode, image.mode)} (Pillow's mode {image.mode}), for which no"
            " formula gives 8-bit colours; save it as RGB or grey in 8 or 16 bits a channel"
        )
    if image.mode == "La":
        image = image.convert("LA")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _from_16_bits(image: PillowImage) -> PillowImage:
    """Converts 16-bit grey, or the 12-bit grey that a TIFF file declares."""
    import numpy as np
    from PIL import Image

    tags = getattr(image, "tag_v2", {})
    highest = 2 ** tags.get(BITS_PER_SAMPLE, (16,))[0] - 1
    values = np.asarray(image)
    levels = np.rint(values / (highest / 255)).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        levels = 255 - levels
    grey = Image.fromarray(levels)
    if "transparency" in image.info:
        opaque = Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8))
        return Image.merge("LA", (grey, opaque)).convert("RGBA")
    return grey.convert("RGB")


def _on_white(image: PillowImage) -> PillowImage:
    """Composites the image onto white, as RGB; opaque pixels keep their bytes."""
    from PIL import Image

    if image.mode == "RGB":
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _upright(image: PillowImage, pixels: PillowImage) -> PillowImage:
    """The pixels turned by the image's EXIF orientation.

    ``ImageOps.exif_transpose`` would rewrite the EXIF as well, and fails on values that cameras write and Pillow
    cannot, such as a signed fraction.
    """
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    turn = turns.get(image.getexif().get(ORIENTATION, 1))
    return pixels if turn is None else pixels.transpose(turn)
