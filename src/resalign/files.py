"""Files and folders that are whole or absent: written beside their place, then moved into it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

_PART = re.compile(r"\..+\.(\d+)\.part")  # .<name>.<process>.part


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to; what lies there takes the place of ``path`` when the block ends well, and is removed if not.

    The data reach the disk before the name does, so that not even a power cut leaves half a file under it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    try:
        yield part
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of ``path`` (absent or empty) when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    try:
        part.mkdir()
        yield part
        os.replace(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def remove_parts(folder: Path) -> None:
    """Removes what killed processes have left of unfinished files and folders, here and below.

    What a process writes that lives is left to it. A process of another machine counts as dead, so that this is for
    folders of one job's own.
    """
    for part in list(folder.rglob(".*.part")):
        found = _PART.fullmatch(part.name)
        if found and not _is_alive(int(found[1])):
            shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's
    return process != os.getpid()  # this one's own are of an earlier process with its number


def empty(folder: Path, keep: Collection[str] = ()) -> None:
    """Removes everything in a folder but what is named: a set that is made anew has nothing of the one before."""
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        if path.name not in keep:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
