"""Files that are whole or absent: written beside their place, then moved into it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to; what lies there takes the place of ``path`` when the block ends well, and is removed if not.

    The data reach the disk before the name does, so that not even a power cut leaves half a file under it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Removes what killed processes have left of unfinished files; for the process alone that owns the folder."""
    for part in folder.glob(".*.part"):
        part.unlink()
