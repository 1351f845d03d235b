"""Compares a file of an archive with the one made again: bytes first, then numbers, line by line.

An archive may be made to deceive, so anything that is not clearly the same counts as a difference.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from resalign.data.image_files import open_image
from resalign.errors import DataError

# Another processor or library may round otherwise: float32 has seven digits, and an anti-aliased edge is off by a step.
NUMBER_TOLERANCE = 1e-6  # of a number with a point or exponent, as a share of it; whole numbers are equal
PIXEL_TOLERANCE = 1  # of 255
NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
MAX_SAID = 5  # differences of one file; the rest are counted
_MOST = 120  # characters of what is shown of a value
_KEY_COLUMNS = 5  # of a table: the first so many cells say which row it is
_TEXTS = (".csv", ".json", ".md", ".svg", ".tex")
_PNG = b"\x89PNG\r\n\x1a\n"


def differences(label: str, expected: Path, again: Path) -> list[str]:
    """Differences, one line each; empty if the files are equal, or equal within the tolerances.

    Args:
        label: What to call the file.
        expected: The one that was handed on.
        again: The one that was made again.
    """
    sizes = expected.stat().st_size, again.stat().st_size
    if sizes[0] > 2 * sizes[1] + 1024:  # nothing of it need be read
        return [f"{label}: {sizes[0]} bytes, made again {sizes[1]}"]
    a, b = expected.read_bytes(), again.read_bytes()
    if a == b:
        return []
    if expected.suffix == ".png":
        lines = list(_pixels(a, b))
    elif expected.suffix in _TEXTS:
        lines = list(_texts(a, b, is_table=expected.suffix == ".csv"))
    else:
        lines = ["other bytes than those made again"]
    listed = [f"{label}: {line}" for line in lines[:MAX_SAID]]
    return [*listed, f"{label}: {len(lines) - MAX_SAID} differences more"] if len(lines) > MAX_SAID else listed


def _pixels(a: bytes, b: bytes) -> Iterator[str]:
    import numpy as np

    # Size, mode, profile, gamma, further frames: whatever decides how the pixels are shown, but for their compression.
    if (was := _shown_by(a)) != (now := _shown_by(b)):
        yield f"{was[:_MOST]}, made again {now[:_MOST]}"
        return
    try:
        first, second = (np.asarray(open_image(data, "it", keeps_alpha=True), dtype=np.int16) for data in (a, b))
    except DataError as error:
        yield f"cannot be read: {error}"
        return
    apart = np.abs(first - second).max(axis=2)
    if (worst := int(apart.max())) > PIXEL_TOLERANCE:
        row, column = np.unravel_index(int(apart.argmax()), apart.shape)
        share = float((apart > PIXEL_TOLERANCE).mean())
        yield (
            f"{100 * share:.3g} % of the pixels differ by more than {PIXEL_TOLERANCE} of 255, most by {worst} at row "
            f"{row}, column {column}"
        )


def _shown_by(data: bytes) -> str:
    """A PNG file's size and chunks, without its compressed pixels and the content of its texts.

    Source: PNG Specification, Third Edition (W3C 2025), Sections 5.2 to 5.3 and 11.2.1.
    """
    if not data.startswith(_PNG):
        return "no PNG file"
    chunks, place = list[str](), len(_PNG)
    while place + 8 <= len(data):
        length, kind = struct.unpack(">L4s", data[place : place + 8])
        content = data[place + 8 : place + 8 + length]
        if kind == b"IHDR" and len(content) == 13:
            width, height, depth, colour, *_ = struct.unpack(">LLBBBBB", content)
            chunks.append(f"{width} x {height} pixels of {depth} bits, colour type {colour}")
        elif kind not in (b"IDAT", b"IEND"):
            value = "" if kind == b"tEXt" else f" {content.hex()}"
            chunks.append(f"{kind.decode('latin-1')!r}{value}")
        place += 12 + length
    return ", ".join([*chunks, *(["more behind its end"] if place != len(data) else [])])


def _texts(a: bytes, b: bytes, *, is_table: bool) -> Iterator[str]:
    try:
        was, now = a.decode("utf-8"), b.decode("utf-8")
    except UnicodeDecodeError as error:
        yield f"is not in UTF-8 ({error})"
        return
    lines = list(_lines(was, now))
    cells = list(_cells(was, now)) if is_table and lines else []
    yield from cells or lines


def _cells(was: str, now: str) -> Iterator[str]:
    """Differences by row and column; cells that are equal but written differently are none."""
    try:
        a, b = (list(csv.reader(io.StringIO(text, newline=""))) for text in (was, now))
    except csv.Error as error:
        yield f"is no table ({error})"
        return
    header = a[0] if a else []
    if header != (b[0] if b else []):
        yield f"columns {_short(header)}, made again {_short(b[0] if b else [])}"
        return
    if len(a) != len(b):
        yield f"{len(a) - 1} rows, made again {len(b) - 1}"
    for number, (old, new) in enumerate(zip(a[1:], b[1:], strict=False), 1):
        for column, (cell, again) in enumerate(itertools.zip_longest(old, new, fillvalue="")):
            if not _equal(cell, again):
                key = _short(", ".join(filter(None, old[:_KEY_COLUMNS])))[1:-1]
                name = header[column] if column < len(header) else f"number {column + 1}"
                yield f"row {number} ({key}), {name}: {_short(cell)}, made again {_short(again)}"


def _lines(was: str, now: str) -> Iterator[str]:
    a, b = was.split("\n"), now.split("\n")
    if len(a) != len(b):
        yield f"{len(a)} lines, made again {len(b)}"
    for number, (line, again) in enumerate(zip(a, b, strict=False), 1):
        if not _equal(line, again):
            yield f"line {number}: {_short(line)}, made again {_short(again)}"


def _equal(was: str, now: str) -> bool:
    """Whether texts are equal up to numbers within a relative tolerance; near 0, within its square."""
    if was == now:
        return True
    if NUMBER.split(was) != NUMBER.split(now):
        return False
    return all(map(_close, NUMBER.findall(was), NUMBER.findall(now)))


def _close(was: str, now: str) -> bool:
    if was == now:
        return True
    x, y = float(was), float(now)
    # Two whole numbers count something, or name it. An infinite one is near every other.
    are_whole = all(number.lstrip("+-").isdigit() for number in (was, now))
    if are_whole or not (math.isfinite(x) and math.isfinite(y)):
        return False
    return math.isclose(x, y, rel_tol=NUMBER_TOLERANCE, abs_tol=NUMBER_TOLERANCE**2)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MOST else f"{text[:_MOST]}…"
