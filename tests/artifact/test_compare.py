import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resalign.artifact.compare import differences

TABLE = "model,attack,value\nbase,none,0.5\nesd,pages,0.25\n"


def compared(tmp_path: Path, suffix: str, expected: str, found: str) -> list[str]:
    (tmp_path / f"a{suffix}").write_text(expected)
    (tmp_path / f"b{suffix}").write_text(found)
    return differences("x", tmp_path / f"a{suffix}", tmp_path / f"b{suffix}")


def test_a_number_is_named_by_its_row_and_column(tmp_path: Path) -> None:
    assert compared(tmp_path, ".csv", TABLE, TABLE.replace("0.25", "0.26")) == [
        "x: row 2 (esd, pages, 0.25), value: '0.25', made again '0.26'"
    ]


def test_the_last_digits_of_a_number_are_tolerated(tmp_path: Path) -> None:
    assert compared(tmp_path, ".csv", TABLE, TABLE.replace("0.25", "0.25000001")) == []
    assert compared(tmp_path, ".csv", TABLE, TABLE.replace("0.25", "0.250001")) != []
    assert compared(tmp_path, ".tex", r"\num{0.25}", r"\num{0.25000001}") == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (TABLE.replace("esd", "uce"), "row 2 (esd, pages, 0.25), model: 'esd', made again 'uce'"),
        (TABLE.replace("value", "values"), "columns"),
        (TABLE + "esd,bold,1\n", "2 rows, made again 3"),
        (TABLE.replace("0.25", "-0.25"), "made again '-0.25'"),
        (TABLE.replace("0.25", "nan"), "made again 'nan'"),
        (TABLE.replace("0.25", ""), "made again ''"),
    ],
)
def test_what_is_no_number_must_be_equal(found: str, said: str, tmp_path: Path) -> None:
    (line,) = compared(tmp_path, ".csv", TABLE, found)
    assert said in line


def test_many_differences_are_counted(tmp_path: Path) -> None:
    lines = compared(tmp_path, ".md", "a\n" * 9, "b\n" * 9)
    assert lines[-1] == "x: 4 differences more"


@pytest.mark.parametrize(("step", "count"), [(1, 0), (2, 1)])
def test_a_pixel_may_be_off_by_one(step: int, count: int, tmp_path: Path) -> None:
    pixels = np.full((4, 5, 3), 100, dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    pixels[2, 3, 1] -= step
    Image.fromarray(pixels).save(tmp_path / "b.png")
    lines = differences("x", tmp_path / "a.png", tmp_path / "b.png")
    assert len(lines) == count
    assert all("row 2, column 3" in line for line in lines)


def test_figures_of_another_size_differ(tmp_path: Path) -> None:
    Image.new("RGB", (4, 5)).save(tmp_path / "a.png")
    Image.new("RGB", (5, 4)).save(tmp_path / "b.png")
    kind = "of 8 bits, colour type 2"
    said = f"x: 4 x 5 pixels {kind}, made again 5 x 4 pixels {kind}"
    assert differences("x", tmp_path / "a.png", tmp_path / "b.png") == [said]


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("0.25", "1e999", "made again '1e999'"),
        ("1e999", "1e9999", "made again '1e9999'"),
        ("inf", "-inf", "made again '-inf'"),
        ("0.25", "0.2500000\N{ARABIC-INDIC DIGIT ONE}", "made again"),
        ("1000000", "1000001", "made again '1000001'"),
        ("007", "7", "made again '7'"),
        ("9" * 5000, "8" * 5000, "made again"),
        ("0.25", '"0.25"', "line 3: 'esd,pages,"),
        ("0.25", "0.25\r", "line 3: "),
        ("0.25", "0.25 ", "made again '0.25 '"),
        ("0.25", "0.25,1", "number 4: '', made again '1'"),
        ("0.25", "x" * 200_000, "bytes, made again"),
        ("0.25", "0.25\x00", "made again"),
    ],
)
def test_what_is_written_to_look_alike_is_a_difference(was: str, now: str, said: str, tmp_path: Path) -> None:
    tables = [TABLE.replace("0.25", value) for value in (was, now)]
    for pair in (tables, tables[::-1]):
        lines = compared(tmp_path, ".csv", *pair)
        assert lines
        assert all(len(line) < 1000 for line in lines)
    assert said in compared(tmp_path, ".csv", *tables)[0] or said in compared(tmp_path, ".csv", *tables[::-1])[0]


def test_rows_in_another_order_and_columns_twice_are_differences(tmp_path: Path) -> None:
    header, *rows = TABLE.splitlines()
    assert compared(tmp_path, ".csv", TABLE, "\n".join([header, *rows[::-1], ""])) != []
    twice = "".join(f"{line},{line.rpartition(',')[2]}\n" for line in TABLE.splitlines())
    assert compared(tmp_path, ".csv", twice, TABLE)[0].startswith("x: columns ")


@pytest.mark.parametrize("suffix", [".csv", ".json", ".md", ".svg", ".tex", ".png", ".html", ""])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'"', b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"])
def test_what_cannot_be_read_is_a_difference(suffix: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / f"a{suffix}").write_bytes(content)
    (tmp_path / f"b{suffix}").write_bytes(PICTURE if suffix == ".png" else TABLE.encode())
    assert differences("x", tmp_path / f"a{suffix}", tmp_path / f"b{suffix}")
    assert differences("x", tmp_path / f"b{suffix}", tmp_path / f"a{suffix}")


def picture(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png", **options)
    return buffer.getvalue()


GREY = Image.new("L", (4, 5), 100)
PICTURE = picture(GREY)


@pytest.mark.parametrize(
    "other",
    [
        picture(GREY.convert("RGB")),
        picture(GREY.convert("P")),
        picture(GREY, save_all=True, append_images=[Image.new("L", (4, 5), 0)]),
        picture(GREY, icc_profile=b"profile"),
        picture(GREY, transparency=3),
        PICTURE[:-12] + b"\x00\x00\x00\x04gAMA\x00\x00\x00\x01\xab\x0f\x05\x12" + PICTURE[-12:],
        PICTURE + b"more",
        PICTURE[:-20],
    ],
    ids=["colour", "palette", "frames", "profile", "transparent", "gamma", "more", "less"],
)
def test_a_picture_that_is_shown_otherwise_differs(other: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(other)
    (tmp_path / "b.png").write_bytes(PICTURE)
    [line] = differences("x", tmp_path / "a.png", tmp_path / "b.png")
    assert len(line) < 500


def test_a_picture_compressed_otherwise_is_equal(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(GREY, compress_level=0))
    (tmp_path / "b.png").write_bytes(PICTURE)
    assert (tmp_path / "a.png").read_bytes() != PICTURE
    assert differences("x", tmp_path / "a.png", tmp_path / "b.png") == []
