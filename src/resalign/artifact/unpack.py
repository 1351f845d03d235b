"""Unpacks an archive that others made, within limits, and checks every byte of it against its own digests."""

from __future__ import annotations

import hashlib
import shutil
import struct
import zipfile
from pathlib import Path

from resalign.artifact.archive import ArchiveError, member_names, open_archive, read_member, sidecar_problem
from resalign.artifact.layout import FORMAT, MANIFESTS, covers
from resalign.artifact.records import MOST_RECORD_BYTES, RecordError, content
from resalign.hashes import DamagedError, Entry, from_text
from resalign.tracking import log

# An archive of records unpacks to a few times its size; one of a thousand times is made to fill a disk.
MOST_BYTES, MOST_TIMES = 1 << 30, 100
_ENTRY_BYTES = 1 << 10  # that one member may have in a manifest; most have 200
_FREE_BYTES = 1 << 30  # left on the disk, for what is made again


def integrity(path: Path, folder: Path, most_bytes: int | None = None) -> list[str]:
    """Unpacks an archive and checks every byte of it.

    Args:
        path: The archive.
        folder: An empty folder to unpack into, made if missing; nothing is written outside it.
        most_bytes: That it may unpack to; None for :data:`MOST_BYTES`, or :data:`MOST_TIMES` its own size.

    Returns:
        What is wrong, a line each, naming the member.
    """
    problems = [problem] if (problem := sidecar_problem(path)) else []
    try:
        with open_archive(path) as archive:
            members = member_names(archive)
            _check_size(path, members, folder, most_bytes)
            unpacked, damaged = _unpack(archive, members, folder)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        return [*problems, f"{path.name}: cannot be unpacked: {error}"]
    problems += damaged
    for name in MANIFESTS:
        try:
            most = max(MOST_RECORD_BYTES, _ENTRY_BYTES * len(members))
            entries = from_text(content(folder / name, name, most), name, FORMAT) if name in unpacked else None
        except (DamagedError, RecordError) as error:
            problems.append(str(error))
            continue
        if entries is None:
            if name not in members:
                problems.append(f"{name}: missing")
            continue
        covered = {member for member in members if covers(name, member)}
        problems += [f"{member}: is in {name} and not in the archive" for member in sorted(set(entries) - covered)]
        problems += [f"{member}: is in the archive and not in {name}" for member in sorted(covered - set(entries))]
        for member in sorted(covered & set(entries) & set(unpacked)):
            if unpacked[member] != entries[member]:
                was, now = entries[member], unpacked[member]
                problems.append(
                    f"{member}: {now.size_bytes} bytes, sha256 {now.sha256}; {name} says {was.size_bytes} bytes, "
                    f"sha256 {was.sha256}"
                )
    return problems


def _check_size(path: Path, members: dict[str, zipfile.ZipInfo], folder: Path, most_bytes: int | None) -> None:
    """Checks the unpacked size of an archive before a byte of it is written.

    Raises:
        ArchiveError: If that is too much, or more than the disk has.
    """
    total = sum(info.file_size for info in members.values())
    log.info("%s: %d files, %.2f GB unpacked", path.name, len(members), total / 1e9)
    most = max(MOST_BYTES, MOST_TIMES * path.stat().st_size) if most_bytes is None else most_bytes
    if total > most:
        raise ArchiveError(
            f"it declares {total / 1e9:.2f} GB; at most {most / 1e9:.2f} GB are unpacked: if you trust it, say "
            f"--most-gigabytes {-(-total // 10**9)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    if folder.is_symlink() or any(folder.iterdir()):
        raise ArchiveError(f"{folder} is a link, or not empty; nothing is unpacked there")
    free = shutil.disk_usage(folder).free
    if total + _FREE_BYTES > free:
        need = (total + _FREE_BYTES) / 1e9
        raise ArchiveError(f"{folder} has {free / 1e9:.2f} GB free of {need:.2f}; set TMPDIR to a larger disk")


def _unpack(
    archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], folder: Path
) -> tuple[dict[str, Entry], list[str]]:
    """Writes every member that can be read; returns their entries, and problems of the others."""
    unpacked, damaged = {}, []
    for name, info in sorted(members.items()):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        try:
            with target.open("xb") as stream:
                for piece in read_member(archive, info):
                    size += stream.write(piece)
                    digest.update(piece)
        except ArchiveError as error:
            damaged.append(f"{name}: {error}")
            continue
        unpacked[name] = Entry(size, digest.hexdigest())
    return unpacked, damaged
