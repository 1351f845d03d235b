"""One function opens an image: each kind of pixel by what it means, and the file's name in whatever goes wrong."""

import ast
import io
import logging
import random
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

from resalign.data import image_files
from resalign.data.image_files import image_format, open_image
from resalign.errors import DataError
from tests.data.pictures import picture

ROOT = Path(__file__).resolve().parents[2]
WHITE = [255, 255, 255]
COLOURS = np.array([[[200, 30, 60], [10, 220, 90]], [[70, 80, 240], [128, 127, 126]]], dtype=np.uint8)
# Of 16-bit grey, whose upper byte alone would be one less in three of these, and which clipping would turn white.
GREYS = np.array([[0, 128, 129, 300], [32767, 32768, 65407, 65535]], dtype=np.uint16)
LEVELS = [[0, 0, 1, 1], [127, 128, 255, 255]]


def encoded(pixels: Any, kind: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    content = io.BytesIO()
    (image.convert(mode) if mode else image).save(content, kind, **options)
    return content.getvalue()


def values(content: bytes) -> np.ndarray:
    image = open_image(content, "mine.png")
    assert image.mode == "RGB"
    return np.array(image)


def png(depth: int, colour: int, rows: list[bytes], *chunks: tuple[bytes, bytes], width: int) -> bytes:
    """A PNG file of a kind that Pillow does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), *(chunk(*more) for more in chunks), chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(width: int, height: int, tags: dict[int, int], data: bytes) -> bytes:
    """An uncompressed TIFF file of a kind that Pillow does not write, grey unless told."""
    told = {256: width, 257: height, 258: 16, 259: 1, 262: 1, 277: 1, 278: height, 279: len(data), **tags}
    told[273] = 8 + 2 + 12 * (len(told) + 1) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(told.items()))
    return struct.pack("<2sHIH", b"II", 42, 8, len(told)) + entries + struct.pack("<I", 0) + data


# --- what pixels mean -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        encoded(GREYS),
        encoded(GREYS, "TIFF"),
        encoded(GREYS.astype(">u2"), "TIFF"),
        encoded(GREYS, "TIFF", compression="tiff_lzw"),
        tiff(4, 2, {262: 0}, (65535 - GREYS).tobytes()),
    ],
    ids=["png", "tiff", "tiff, big-endian", "tiff, compressed", "tiff whose zero is white"],
)
def test_16_bit_grey_is_rounded_to_8_bits(content: bytes) -> None:
    assert values(content)[..., 0].tolist() == LEVELS
    assert np.ptp(values(content), axis=2).max() == 0


def test_12_bit_grey_is_4096_levels() -> None:
    # 0, 4095 | 2048, 8: two values in three bytes.
    assert values(tiff(2, 2, {258: 12}, bytes.fromhex("000fff800008")))[..., 0].tolist() == [[0, 255], [128, 0]]


def test_16_bit_colour_is_less_than_a_level_apart() -> None:
    colours = np.random.default_rng(0).integers(0, 65536, (3, 5, 3), dtype=np.uint16)
    content = png(16, 2, [row.astype(">u2").tobytes() for row in colours], width=5)
    assert np.abs(values(content) - colours / 257).max() < 1


OPAQUE = {
    "PNG": ["RGB", "RGBA", "P", "L", "LA", "1"],
    "TIFF": ["RGB", "RGBA", "P", "L", "LA", "1", "CMYK", "YCbCr"],
    "WEBP": ["RGB", "RGBA"],
    "BMP": ["RGB", "RGBA", "P", "L", "1"],
    "GIF": ["RGB", "P", "L", "1"],
    "JPEG": ["RGB", "L", "CMYK", "YCbCr"],
}


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in OPAQUE.items() for mode in modes])
def test_8_bits_are_what_pillow_has(kind: str, mode: str) -> None:
    content = encoded(COLOURS, kind, mode)
    with Image.open(io.BytesIO(content)) as found:
        expected = np.asarray(found.convert("RGB"))
    assert values(content).tolist() == expected.tolist()


@pytest.mark.parametrize(("mode", "kind"), [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("RGB", "JPEG"), ("YCbCr", "TIFF")])
def test_colours_stay_what_they_are(mode: str, kind: str) -> None:
    """CMYK in JPEG files is inverted."""
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    content = encoded(np.tile(np.uint8([250, 128, 5]), (8, 8, 1)), kind, mode, **options)
    assert np.abs(values(content).astype(int) - [250, 128, 5]).max() <= 3


ALPHA = np.dstack([COLOURS, np.uint8([[0, 255], [255, 128]])])


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_transparency_is_laid_on_white(kind: str, options: dict[str, Any]) -> None:
    found = values(encoded(ALPHA, kind, **options))
    assert found[0, 0].tolist() == WHITE
    assert found[0, 1].tolist() == COLOURS[0, 1].tolist()
    assert found[1, 0].tolist() == COLOURS[1, 0].tolist()
    assert np.abs(found[1, 1] - (COLOURS[1, 1] * (128 / 255) + 127)).max() <= 1
    assert np.asarray(open_image(encoded(ALPHA), keeps_alpha=True)).tolist() == ALPHA.tolist()


def test_what_is_opaque_keeps_its_bytes() -> None:
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    opaque = np.dstack([every, np.full((16, 16), 255, dtype=np.uint8)])
    assert values(encoded(opaque)).tolist() == every.tolist()


def test_palettes_with_transparent_colours() -> None:
    palette = Image.fromarray(COLOURS).quantize(4)
    places = np.asarray(palette)
    for kind in ("PNG", "GIF"):
        found = values(encoded(palette, kind, transparency=int(places[0, 0])))
        assert found[0].tolist() == [WHITE, COLOURS[0, 1].tolist()]
    alpha = bytearray(b"\xff" * 4)
    alpha[places[0, 0]], alpha[places[1, 1]] = 0, 128
    found = values(encoded(palette, transparency=bytes(alpha)))
    assert found[0, 0].tolist() == WHITE
    assert found[0, 1].tolist() == COLOURS[0, 1].tolist()
    assert np.abs(found[1, 1] - (COLOURS[1, 1] * (128 / 255) + 127)).max() <= 1


@pytest.mark.parametrize("pixels", [COLOURS, COLOURS[..., 0], GREYS], ids=["RGB", "L", "I;16"])
def test_one_colour_that_is_marked_as_transparent(pixels: np.ndarray) -> None:
    key = pixels[0, 1].tolist()
    found = values(encoded(pixels, transparency=tuple(key) if isinstance(key, list) else key))
    kept = values(encoded(pixels))
    kept[0, 1] = WHITE
    assert found.tolist() == kept.tolist()


@pytest.mark.parametrize("extra", [0, 1, 2], ids=["of no meaning", "multiplied already", "as it is"])
def test_the_fourth_channel_of_a_tiff(extra: int) -> None:
    rgb = [100, 60, 20]
    told = {258: 8, 262: 2, 277: 4, 338: extra}
    alone = [tiff(1, 1, told, bytes([*rgb, alpha])) for alpha in (255, 128)]
    # BitsPerSample of several samples lies outside its entry in other writers' files; here it is one number for all.
    expected = {0: rgb, 1: [colour + 127 for colour in rgb], 2: [round(colour * 128 / 255 + 127) for colour in rgb]}
    assert values(alone[0])[0, 0].tolist() == rgb
    assert np.abs(values(alone[1])[0, 0].astype(int) - expected[extra]).max() <= 1


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (encoded(GREYS.astype(np.int32), "TIFF"), "32-bit or signed integers (Pillow's mode I)"),
        (encoded(GREYS.astype(np.float32), "TIFF"), "floating-point numbers (Pillow's mode F)"),
        (encoded(Image.new("LAB", (4, 2)), "TIFF"), "LAB (Pillow's mode LAB)"),
        (tiff(4, 2, {339: 2}, GREYS.tobytes()), "32-bit or signed integers (Pillow's mode I)"),
    ],
    ids=["I", "F", "LAB", "signed 16 bits"],
)
def test_pixels_without_a_known_meaning_are_refused(content: bytes, kind: str) -> None:
    for read in (open_image, image_format):
        with pytest.raises(DataError) as caught:
            read(content, "mine.tif")
        assert str(caught.value).startswith(f"mine.tif: its pixels are {kind}")
        assert "save it as RGB or grey in 8 or 16 bits a channel" in str(caught.value)


@pytest.mark.parametrize(
    ("depth", "colour", "row", "key"),
    [(16, 2, bytes(6), bytes(6)), (4, 0, b"\x3f", b"\0\x03"), (2, 0, b"\x30", b"\0\x03")],
)
def test_a_transparent_colour_that_pillow_would_look_for_in_other_numbers(
    depth: int, colour: int, row: bytes, key: bytes
) -> None:
    content = png(depth, colour, [row], (b"tRNS", key), width=1)
    with pytest.raises(DataError, match=r"mine.png: a transparent colour in pixels of kind .* is not read"):
        open_image(content, "mine.png")


# --- camera files -----------------------------------------------------------------------------------------------------


def test_a_cameras_file_of_several_pictures_is_a_jpeg() -> None:
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    content = encoded(first, "MPO", save_all=True, append_images=[second])
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "MPO"
    assert image_format(content, "phone.jpg") == "JPEG"
    assert np.abs(values(content).astype(int) - [254, 0, 0]).max() <= 2


RESOLUTION = 0x011A


def with_a_signed_fraction(orientation: int) -> bytes:
    """A JPEG whose EXIF has -1/3 in a tag that Pillow writes as an unsigned fraction."""
    exif = Image.Exif()
    exif[0x0112], exif[RESOLUTION] = orientation, TiffImagePlugin.IFDRational(1, 3)
    content = bytearray(encoded(np.repeat(COLOURS, 8, axis=0), "JPEG", exif=exif))
    base = content.index(b"Exif\0\0") + 6
    order = "<" if content[base : base + 2] == b"II" else ">"
    entry = content.index(struct.pack(f"{order}HHI", RESOLUTION, 5, 1))
    content[entry + 2 : entry + 4] = struct.pack(f"{order}H", 10)
    (offset,) = struct.unpack(f"{order}I", content[entry + 8 : entry + 12])
    content[base + offset : base + offset + 8] = struct.pack(f"{order}ii", -1, 3)
    return bytes(content)


def test_a_signed_fraction_in_exif_is_no_reason_to_fail() -> None:
    content = with_a_signed_fraction(6)
    with Image.open(io.BytesIO(content)) as image, pytest.raises(struct.error):
        ImageOps.exif_transpose(image)
    upright = np.asarray(open_image(with_a_signed_fraction(1)))
    assert values(content).tolist() == np.rot90(upright, -1).tolist()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(10))
def test_orientations_are_those_of_exif(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8), kind, exif=exif)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert values(content).tolist() == expected.tolist()


@pytest.mark.parametrize("compressed", [True, False])
def test_a_long_text_in_a_png(compressed: bool) -> None:
    info = PngInfo()
    info.add_text("workflow", "x" * 3_000_000, zip=compressed)
    assert values(encoded(COLOURS, pnginfo=info)).tolist() == COLOURS.tolist()


def test_a_text_that_would_fill_the_memory() -> None:
    text = zlib.compress(bytes(65 << 20), 1)
    content = png(8, 0, [b"\0"], (b"zTXt", b"workflow\0\0" + text), width=1)
    with pytest.raises(DataError, match=r"mine.png: not a whole image of .*too large"):
        open_image(content, "mine.png")


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_the_first_of_several_pictures_is_read_and_the_log_says_so(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    with caplog.at_level(logging.INFO, logger="resalign"):
        content = encoded(first, kind, save_all=True, append_images=[second])
        assert image_format(content, "mine") == kind
        assert np.abs(values(content).astype(int) - [255, 0, 0]).max() <= 8
        assert image_format(encoded(first, kind), "other") == kind
    assert caplog.messages == ["mine: holds 2 pictures; the first is read"]


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_pillow_is_asked_to_open_a_file_in_one_module_alone() -> None:
    found = []
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "open" and ast.unparse(node.value).endswith("Image"):
                found.append(path.relative_to(ROOT).as_posix())
            elif isinstance(node, ast.ImportFrom) and node.module in ("PIL.Image", "torchvision.io"):
                assert not {alias.name for alias in node.names} & {"open", "read_image"}, path
            elif isinstance(node, ast.Attribute) and node.attr in ("imread", "exif_transpose"):
                found.append(path.relative_to(ROOT).as_posix())
    # The library turns images that are in memory already.
    assert sorted(set(found)) == ["src/resalign/data/image_files.py", "src/resalign/library/inputs.py"]


@pytest.mark.parametrize("content", [b"", b"no image", picture(edge=64)[:-3000], picture(kind="JPEG")[:50]])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.png").write_bytes(content)
    for source, label in ((tmp_path / "broken.png", ""), (content, "mine: 'a.png'")):
        with pytest.raises(DataError) as caught:
            open_image(source, label, remedy="fetch it again")
        assert str(caught.value).startswith(f"{label or source}: not a whole image of PNG, JPEG")
        assert str(caught.value).endswith("; fetch it again")
        assert " at 0x" not in str(caught.value)
    with pytest.raises(DataError, match=r"gone.png: no such file; replace it"):
        open_image(tmp_path / "gone.png")


def damaged() -> list[bytes]:
    """Files of all kinds with a few bytes changed or their end cut off."""
    dice = random.Random(0)
    exif = Image.Exif()
    exif[0x0112], exif[0x829A], exif[0x010F] = 6, TiffImagePlugin.IFDRational(1, 3), "maker"
    whole = [encoded(ALPHA, kind, exif=exif) for kind in ("PNG", "TIFF", "WEBP")]
    whole += [encoded(COLOURS, kind) for kind in ("GIF", "BMP")] + [encoded(GREYS), with_a_signed_fraction(3)]
    whole += [encoded(COLOURS, "TIFF", compression=kind) for kind in ("tiff_adobe_deflate", "packbits")]
    whole += [encoded(Image.fromarray(COLOURS), "MPO", save_all=True, append_images=[Image.new("RGB", (4, 4))])]
    found = []
    for number in range(1500):
        content = bytearray(whole[number % len(whole)])
        for _ in range(dice.choice((1, 1, 2, 4))):
            content[dice.randrange(min(len(content), dice.choice((40, 200, len(content)))))] = dice.choice(
                (0, 1, 127, 128, 255, dice.randrange(256))
            )
        found.append(bytes(content[: dice.randrange(1, len(content))] if dice.random() < 0.1 else content))
    return found


def test_whatever_a_damaged_file_makes_pillow_throw_is_told_with_its_name(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "MAX_PIXELS", 1 << 20)  # a damaged size costs time
    told = []
    for content in damaged():
        try:
            image_format(content, "mine.png")
        except DataError as error:
            told.append(str(error))
    assert len(told) > 300
    assert {message.split(": ")[0] for message in told} == {"mine.png"}
    capfd.readouterr()  # what libtiff writes


def test_pillows_warnings_are_told_with_the_files_name(caplog: pytest.LogCaptureFixture) -> None:
    content = encoded(np.repeat(COLOURS, 8, axis=0), "MPO", save_all=True, append_images=[Image.new("RGB", (4, 4))])
    broken = content.replace(b"MPF\0II*\0", b"MPF\0II*\1", 1)
    assert broken != content
    with warnings.catch_warnings(record=True, action="always") as told:
        image_format(broken, "phone.jpg")
    assert not told
    assert [message.split(":")[0] for message in caplog.messages] == ["phone.jpg"]
    assert "malformed MPO" in caplog.text
