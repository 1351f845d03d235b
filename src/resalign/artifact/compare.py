"""Whether a file that was made again is the one that was handed on: bytes first, then numbers, row by row."""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path

from resalign.config.shape import ArtifactConfig
from resalign.data.image_files import open_image

NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
MAX_SAID = 5  # differences of one file; the rest are counted
_KEY_COLUMNS = 5  # of a table: the first so many cells say which row it is


def differences(label: str, expected: Path, found: Path, tolerance: ArtifactConfig) -> list[str]:
    """What differs, a line each; empty if the files are equal, or equal within the tolerance.

    Args:
        label: What to call the file.
        expected: The one that was handed on.
        found: The one that was made again.
        tolerance: Of numbers and of pixels.
    """
    if expected.read_bytes() == found.read_bytes():
        return []
    if expected.suffix == ".png":
        lines = list(_pixels(expected, found, tolerance.pixel_tolerance))
    elif expected.suffix == ".csv":
        lines = list(_cells(expected, found, tolerance.number_tolerance))
    else:
        lines = list(_texts(expected, found, tolerance.number_tolerance))
    said = [f"{label}: {line}" for line in lines[:MAX_SAID]]
    return [*said, f"{label}: {len(lines) - MAX_SAID} differences more"] if len(lines) > MAX_SAID else said


def _pixels(expected: Path, found: Path, tolerance: int) -> Iterator[str]:
    import numpy as np

    a, b = (np.asarray(open_image(path, keeps_alpha=True), dtype=np.int16) for path in (expected, found))
    if a.shape != b.shape:
        yield f"{a.shape[1]} x {a.shape[0]} pixels, made again {b.shape[1]} x {b.shape[0]}"
        return
    apart = np.abs(a - b).max(axis=2)
    if (worst := int(apart.max())) > tolerance:
        row, column = np.unravel_index(int(apart.argmax()), apart.shape)
        share = float((apart > tolerance).mean())
        yield (
            f"{100 * share:.3g} % of the pixels differ by more than {tolerance} of 255, most by {worst} at row {row}, "
            f"column {column}"
        )


def _cells(expected: Path, found: Path, tolerance: float) -> Iterator[str]:
    a, b = (list(csv.reader(io.StringIO(path.read_text(encoding="utf-8")))) for path in (expected, found))
    header = a[0] if a else []
    if header != (b[0] if b else []):
        yield f"columns {header}, made again {b[0] if b else []}"
        return
    if len(a) != len(b):
        yield f"{len(a) - 1} rows, made again {len(b) - 1}"
    for number, (left, right) in enumerate(zip(a[1:], b[1:], strict=False), 1):
        for column, (was, now) in enumerate(itertools.zip_longest(left, right, fillvalue="")):
            if not _equal(was, now, tolerance):
                key = ", ".join(filter(None, left[:_KEY_COLUMNS]))
                name = header[column] if column < len(header) else f"number {column + 1}"
                yield f"row {number} ({key}), {name}: {was!r}, made again {now!r}"


def _texts(expected: Path, found: Path, tolerance: float) -> Iterator[str]:
    a, b = (path.read_text(encoding="utf-8").split("\n") for path in (expected, found))
    if len(a) != len(b):
        yield f"{len(a)} lines, made again {len(b)}"
    for number, (was, now) in enumerate(zip(a, b, strict=False), 1):
        if not _equal(was, now, tolerance):
            yield f"line {number}: {_short(was)!r}, made again {_short(now)!r}"


def _equal(was: str, now: str, tolerance: float) -> bool:
    """Equal text, but for numbers, which may be apart by a share of the larger one; near 0 by that share's square."""
    if was == now:
        return True
    if NUMBER.split(was) != NUMBER.split(now):
        return False
    pairs = zip(NUMBER.findall(was), NUMBER.findall(now), strict=True)
    return all(math.isclose(float(x), float(y), rel_tol=tolerance, abs_tol=tolerance**2) for x, y in pairs)


def _short(text: str, most: int = 120) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
