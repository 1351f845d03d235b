"""Files in shards: uncompressed zip files, in which a member's path is ``<shard>.zip/<name>``."""

from __future__ import annotations

import errno
import functools
import io
import os
import zipfile
from collections.abc import Collection, Iterable
from pathlib import Path

from resalign.errors import DataError
from resalign.files import whole

SUFFIX = ".zip"
MOST_FILES = 1000  # in one shard
_TIME, _UNIX, _MODE = (1980, 1, 1, 0, 0, 0), 3, 0o644 << 16  # fixed, so that equal files make equal bytes
_LENGTHS = 26  # where a member's own header gives the lengths of its name and extra field [APPNOTE 6.3.10, 4.3.7]
# What zipfile raises where the list of members is damaged.
_DAMAGED = (zipfile.BadZipFile, NotImplementedError, ValueError)


def holder(path: Path) -> Path:
    """The file on disk that has the bytes of a path: a member's shard, or the path itself."""
    shard = path.parent
    return shard if shard.suffix == SUFFIX and shard.is_file() else path


def size(path: Path) -> int:
    """Bytes of a file or of a shard's member.

    Raises:
        FileNotFoundError: If there is none.
    """
    return _place(path)[1] if holder(path) != path else path.stat().st_size


def opened(path: Path) -> io.BufferedReader | io.BytesIO:
    """A file or a shard's member, to be read.

    Raises:
        FileNotFoundError: If there is none.
    """
    if holder(path) == path:
        return path.open("rb")
    while True:
        with path.parent.open("rb") as shard:
            start, size_bytes = _place(path)
            if not os.path.samestat(os.fstat(shard.fileno()), path.parent.stat()):
                continue  # another file has just taken its place: members lie elsewhere in it
            shard.seek(start + _LENGTHS)
            lengths = shard.read(4)
            shard.seek(int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little"), os.SEEK_CUR)
            return io.BytesIO(shard.read(size_bytes))


def write(shard: Path, files: Iterable[Path]) -> None:
    """Writes a shard of some files or members, each by its name."""
    with whole(shard) as part, zipfile.ZipFile(part, "w") as archive:
        for path in files:
            info = zipfile.ZipInfo(path.name, _TIME)
            info.create_system, info.external_attr = _UNIX, _MODE
            with opened(path) as stream:
                archive.writestr(info, stream.read())


def drop(shard: Path, names: Collection[str]) -> int:
    """Removes members, and the shard itself with its last one; returns how many bytes shorter it is.

    Raises:
        DataError: If the shard is damaged.
    """
    before, members = shard.stat().st_size, _members(shard)
    kept = [name for name in members if name not in names]
    if not kept:
        shard.unlink()
        return before
    if len(kept) < len(members):
        write(shard, [shard / name for name in kept])
    return before - shard.stat().st_size


def _place(path: Path) -> tuple[int, int]:
    """Where a member's header begins, and the member's bytes."""
    try:
        return _members(path.parent)[path.name]
    except (KeyError, DataError):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None


def _members(shard: Path) -> dict[str, tuple[int, int]]:
    stat = shard.stat()
    return _read_members(shard.absolute(), stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=64)
def _read_members(shard: Path, _mtime: int, _size: int) -> dict[str, tuple[int, int]]:
    try:
        with zipfile.ZipFile(shard) as archive:
            members = [info for info in archive.infolist() if info.compress_type == zipfile.ZIP_STORED]
    except _DAMAGED as error:
        raise DataError(
            f"{shard}: is no whole zip file ({error}); remove it, and the next run makes it again"
        ) from None
    # A damaged list may lead to before the file's first byte.
    return {info.filename: (info.header_offset, info.file_size) for info in members if info.header_offset >= 0}
