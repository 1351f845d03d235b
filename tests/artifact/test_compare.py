from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resalign.artifact.compare import differences
from resalign.config.shape import ArtifactConfig

TOLERANCE = ArtifactConfig()
TABLE = "model,attack,value\nbase,none,0.5\nesd,pages,0.25\n"


def compared(tmp_path: Path, suffix: str, expected: str, found: str) -> list[str]:
    (tmp_path / f"a{suffix}").write_text(expected)
    (tmp_path / f"b{suffix}").write_text(found)
    return differences("x", tmp_path / f"a{suffix}", tmp_path / f"b{suffix}", TOLERANCE)


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
    lines = differences("x", tmp_path / "a.png", tmp_path / "b.png", TOLERANCE)
    assert len(lines) == count
    assert all("row 2, column 3" in line for line in lines)


def test_figures_of_another_size_differ(tmp_path: Path) -> None:
    Image.new("RGB", (4, 5)).save(tmp_path / "a.png")
    Image.new("RGB", (5, 4)).save(tmp_path / "b.png")
    assert differences("x", tmp_path / "a.png", tmp_path / "b.png", TOLERANCE) == ["x: 4 x 5 pixels, made again 5 x 4"]
