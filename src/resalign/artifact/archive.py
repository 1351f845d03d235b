"""Writes and reads a zip archive whose bytes depend only on its members; its digest is in a file beside it."""

from __future__ import annotations

import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from resalign.config.references import is_inside
from resalign.config.strict import ConfigError
from resalign.data.members import composed
from resalign.files import whole
from resalign.hashes import Entry

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say
_MODE = stat.S_IFREG | 0o644
_UNIX = 3  # the host system whose modes `external_attr` holds
_NEEDS_ZIP64_BYTES = 1 << 30  # well below the format's limit: what is deflated may grow
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# APPNOTE.TXT 6.3.10, 4.3.16 and 4.3.14: the end record, and the zip64 one with its locator before it.
_END, _LOCATOR, _END64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sLQL"), struct.Struct("<4sQ2H2L4Q")
_MAX_DIRECTORY_BYTES = 512 << 20  # three million members
_MAX_NAME_BYTES, _MAX_PATH_BYTES = 255, 1024  # NAME_MAX of Linux, PATH_MAX of macOS
# What Windows takes for a device, drops from a name's end, or refuses in it; what git takes for a repository.
_NOT_A_NAME = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*[. ]|.*[<>:\"|?*\\].*|\.git|git~\d+|\.{1,2}|")


class ArchiveError(ValueError):
    """An archive that cannot be read, or is not to be unpacked."""


def write_archive(path: Path, members: Mapping[str, bytes | Path]) -> None:
    """Writes the archive and ``<path>.sha256`` beside it, each whole or not at all.

    Args:
        path: Where to.
        members: Content, or the file that has it, by name; all come under one folder, named as the archive.

    Raises:
        ConfigError: If a name is none on some systems, so that :func:`member_names` would refuse it.
    """
    with whole(path) as part:
        with zipfile.ZipFile(part, "w") as archive:
            _write(archive, path.stem, members)
        try:
            with open_archive(part) as written:
                member_names(written, "rename it")
        except ArchiveError as error:
            raise ConfigError(f"{path.name}: nobody could unpack it: {error}") from None
    with whole(sidecar(path)) as part:
        part.write_text(f"{Entry.of(path).sha256}  {path.name}\n", encoding="utf-8")


def _write(archive: zipfile.ZipFile, root: str, members: Mapping[str, bytes | Path]) -> None:
    for name in sorted(members):
        info = zipfile.ZipInfo(f"{root}/{name}", _EPOCH)
        info.create_system, info.external_attr, info.compress_type = _UNIX, _MODE << 16, zipfile.ZIP_DEFLATED
        content = members[name]
        if isinstance(content, bytes):
            archive.writestr(info, content)
            continue
        large = content.stat().st_size >= _NEEDS_ZIP64_BYTES
        with content.open("rb") as source, archive.open(info, "w", force_zip64=large) as target:
            shutil.copyfileobj(source, target, 1 << 20)


def sidecar(path: Path) -> Path:
    """The file with the archive's digest, as ``sha256sum --check`` reads it."""
    return path.with_name(f"{path.name}.sha256")


def sidecar_problem(path: Path) -> str | None:
    """Describes a wrong or missing digest of the archive; None if it is right."""
    beside = sidecar(path)
    if not beside.is_file():
        return f"{beside.name}: missing; the archive is to be handed on with it"
    with beside.open("rb") as stream:
        expected, digest = stream.read(_MAX_PATH_BYTES), Entry.of(path).sha256
    if expected != f"{digest}  {path.name}\n".encode():
        return f"{path.name}: sha256 is {digest}; {beside.name} says {expected.decode(errors='replace').strip()!r}"
    return None


def open_archive(path: Path) -> zipfile.ZipFile:
    """Opens an archive; only its list of members is read.

    Raises:
        ArchiveError: If there is something before, behind or between its parts, or its list is too long to be read.
        zipfile.BadZipFile: If it is none.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        end, locator, end64 = (
            _last(stream, size, *parts) for parts in ((_END,), (_LOCATOR, _END), (_END64, _LOCATOR, _END))
        )
    if end is None or end[0] != b"PK\5\6" or end[-1]:
        raise ArchiveError("it is no zip file, or has a comment or something else behind its end; do not use it")
    directory = end64[8] if locator and locator[0] == b"PK\6\7" and end64 else end[5]
    if directory > _MAX_DIRECTORY_BYTES:
        raise ArchiveError(f"its list of members has {directory:,} bytes; at most {_MAX_DIRECTORY_BYTES:,} are read")
    archive = zipfile.ZipFile(path)
    try:
        _check_places(path, archive)
    except ArchiveError:
        archive.close()
        raise
    return archive


def _last(stream: BinaryIO, size: int, *records: struct.Struct) -> tuple[Any, ...] | None:
    """The first of some records that stand at a file's end; None where the file is shorter."""
    place = size - sum(record.size for record in records)
    if place < 0:
        return None
    stream.seek(place)
    return records[0].unpack(stream.read(records[0].size))


def _check_places(path: Path, archive: zipfile.ZipFile) -> None:
    """Checks that every byte belongs to one member: overlapping members let a small file unpack to terabytes."""
    place = 0
    with path.open("rb") as stream:
        for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
            if info.header_offset != place:
                raise ArchiveError(
                    f"{info.orig_filename!r} overlaps another member, or something lies before it; do not use it"
                )
            stream.seek(place + 26)
            name_bytes, extra_bytes = struct.unpack("<HH", stream.read(4))
            place += 30 + name_bytes + extra_bytes + info.compress_size
    if place != archive.start_dir:
        raise ArchiveError("something lies behind its members; do not use it")


def member_names(archive: zipfile.ZipFile, remedy: str = "do not use it") -> dict[str, zipfile.ZipInfo]:
    """Members by their name below the archive's only folder.

    Args:
        archive: Opened.
        remedy: What the error asks for.

    Raises:
        ArchiveError: If a name leads out of it, is no name on every system, or is another's there; if a member is none
            of a plain file's content.
    """
    by_name: dict[str, zipfile.ZipInfo] = {}
    # Every path and folder, by how a system sees it that knows no case and one Unicode form.
    spelled: dict[str, str] = {}
    roots = set()
    for info in archive.infolist():
        # orig_filename: zipfile itself cuts a name at a zero byte.
        whole_name = info.orig_filename
        root, _, name = whole_name.partition("/")
        roots.add(root)
        parts = whole_name.split("/")
        if (
            not is_inside(whole_name)
            or not name
            or any(map(_NOT_A_NAME.fullmatch, parts))
            or not whole_name.isprintable()
        ):
            raise ArchiveError(f"the name {whole_name!r} is none of a file inside the archive; {remedy}")
        if (
            len(os.fsencode(whole_name)) > _MAX_PATH_BYTES
            or max(len(os.fsencode(part)) for part in parts) > _MAX_NAME_BYTES
        ):
            raise ArchiveError(f"the name {name[:60]!r}… is too long; {remedy}")
        if name in by_name:
            raise ArchiveError(f"'{name}' is there twice; {remedy}")
        if not stat.S_ISREG(info.external_attr >> 16) or info.flag_bits & 1:
            raise ArchiveError(f"'{name}' is a link or encrypted; {remedy}")
        if info.compress_type not in _METHODS:
            raise ArchiveError(
                f"'{name}' is compressed by method {info.compress_type}, neither stored nor deflated; {remedy}"
            )
        for end in range(1, len(parts) + 1):
            path = "/".join(parts[:end]) + ("/" if end < len(parts) else "")
            other = spelled.setdefault(composed(path).casefold().rstrip("/"), path)
            if other != path:
                raise ArchiveError(f"{path!r} and {other!r} are one name on some systems; {remedy}")
        by_name[name] = info
    if len(roots) > 1:
        raise ArchiveError(f"it has several folders, {sorted(roots)}; {remedy}")
    return by_name


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """A member's content in pieces, and never more than its declared size.

    Raises:
        ArchiveError: If it is damaged.
    """
    try:
        with archive.open(info) as stream:
            while piece := stream.read(1 << 20):
                yield piece
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, struct.error) as error:
        raise ArchiveError(f"damaged ({error})") from None
