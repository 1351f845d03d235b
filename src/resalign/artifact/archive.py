"""A zip archive whose bytes depend on its members alone, with its digest in a file beside it."""

from __future__ import annotations

import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from resalign.artifact.manifest import Entry
from resalign.config.references import is_inside
from resalign.files import whole

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say
_MODE = stat.S_IFREG | 0o644
_UNIX = 3  # the host system whose modes `external_attr` holds
_NEEDS_ZIP64_BYTES = 1 << 30  # well below the format's limit: what is deflated may grow


class ArchiveError(ValueError):
    """An archive that cannot be read, or is not to be unpacked."""


def write_archive(path: Path, members: Mapping[str, bytes | Path]) -> None:
    """Writes the archive and ``<path>.sha256`` beside it, each whole or not at all.

    Args:
        path: Where to.
        members: Content, or the file that has it, by name; all come under one folder, named as the archive.
    """
    with whole(path) as part, zipfile.ZipFile(part, "w") as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(f"{path.stem}/{name}", _EPOCH)
            info.create_system, info.external_attr, info.compress_type = _UNIX, _MODE << 16, zipfile.ZIP_DEFLATED
            content = members[name]
            if isinstance(content, bytes):
                archive.writestr(info, content)
                continue
            large = content.stat().st_size >= _NEEDS_ZIP64_BYTES
            with content.open("rb") as source, archive.open(info, "w", force_zip64=large) as target:
                shutil.copyfileobj(source, target, 1 << 20)
    with whole(sidecar(path)) as part:
        part.write_text(f"{Entry.of(path).sha256}  {path.name}\n", encoding="utf-8")


def sidecar(path: Path) -> Path:
    """The file with the archive's digest, as ``sha256sum --check`` reads it."""
    return path.with_name(f"{path.name}.sha256")


def sidecar_problem(path: Path) -> str | None:
    """What is wrong with the archive's digest; None if nothing is."""
    beside = sidecar(path)
    if not beside.is_file():
        return f"{beside.name}: missing; the archive is to be handed on with it"
    expected, found = beside.read_bytes(), Entry.of(path).sha256
    if expected != f"{found}  {path.name}\n".encode():
        return f"{path.name}: sha256 is {found}; {beside.name} says {expected.decode(errors='replace').strip()!r}"
    return None


def member_names(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Members by their name below the archive's one folder.

    Raises:
        ArchiveError: If a name leads out of it, is there twice, or is a link.
    """
    found: dict[str, zipfile.ZipInfo] = {}
    roots = set()
    for info in archive.infolist():
        # orig_filename: zipfile itself cuts a name at a zero byte.
        root, _, name = info.orig_filename.partition("/")
        roots.add(root)
        if not is_inside(info.orig_filename) or not name or name.endswith("/") or "\\" in name:
            raise ArchiveError(f"the name {info.orig_filename!r} is none of a file inside the archive; do not use it")
        if name in found:
            raise ArchiveError(f"'{name}' is there twice; do not use it")
        if not stat.S_ISREG(info.external_attr >> 16) or info.flag_bits & 1:
            raise ArchiveError(f"'{name}' is a link or encrypted; do not use it")
        found[name] = info
    if len(roots) > 1:
        raise ArchiveError(f"it has several folders, {sorted(roots)}; do not use it")
    return found


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """A member's content, piece by piece.

    Raises:
        ArchiveError: If it is damaged.
    """
    try:
        with archive.open(info) as stream:
            while piece := stream.read(1 << 20):
                yield piece
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, struct.error) as error:
        raise ArchiveError(f"damaged ({error})") from None
