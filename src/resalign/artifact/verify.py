"""Holds an archive to account: its digest, every member's, and what its raw scores give when reported again."""

from __future__ import annotations

import hashlib
import shutil
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

from resalign.artifact import manifest, rebuild, source
from resalign.artifact.archive import ArchiveError, member_names, read_member, sidecar_problem
from resalign.artifact.compare import differences
from resalign.artifact.layout import PATCH, REBUILD, SOURCE, UNTRACKED
from resalign.artifact.manifest import MANIFESTS, PROVENANCE, Entry, ManifestError
from resalign.config.closure import ROOT
from resalign.config.shape import ArtifactConfig
from resalign.config.strict import ConfigError
from resalign.stage_server import stage_server
from resalign.tracking import log


def integrity(path: Path, folder: Path) -> list[str]:
    """Unpacks an archive and checks every byte of it.

    Args:
        path: The archive.
        folder: An empty folder to unpack into; nothing is written outside it.

    Returns:
        What is wrong, a line each, naming the member.
    """
    problems = [problem] if (problem := sidecar_problem(path)) else []
    try:
        with zipfile.ZipFile(path) as archive:
            members = member_names(archive)
            unpacked, damaged = _unpack(archive, members, folder)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        return [*problems, f"{path.name}: cannot be unpacked: {error}"]
    problems += damaged
    for name in MANIFESTS:
        try:
            entries = manifest.from_text((folder / name).read_bytes(), name) if name in unpacked else None
        except ManifestError as error:
            problems.append(str(error))
            continue
        if entries is None:
            if name not in members:
                problems.append(f"{name}: missing")
            continue
        covered = {member for member in members if manifest.covers(name, member)}
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


def _unpack(
    archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], folder: Path
) -> tuple[dict[str, Entry], list[str]]:
    """Writes every member that can be read; returns what they are, and which cannot."""
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


def lay_out(folder: Path, root: Path) -> None:
    """Builds the tree that the results were made in, as far as the archive has it.

    Args:
        folder: The unpacked archive.
        root: Folder to build in, made if missing: source with its local difference, results, inputs.

    Raises:
        ConfigError: If the local difference does not fit the source.
    """
    shutil.copytree(folder / SOURCE, root, dirs_exist_ok=True)
    if (folder / PATCH).is_file():
        source.apply_patch(folder / PATCH, root)
    parts = {UNTRACKED: root, f"{PROVENANCE}results": root / "results"}
    parts |= {part: root / part for part in ("results", "inputs")}
    for part, target in parts.items():
        if (folder / part).is_dir():
            shutil.copytree(folder / part, target, dirs_exist_ok=True)


def rebuilt(folder: Path, root: Path) -> Iterator[str]:
    """Makes tables and figures again and compares them.

    Args:
        folder: The unpacked archive.
        root: What :func:`lay_out` has built of it.

    Yields:
        What differs, a line each, naming file and row.
    """
    entries, tolerance = rebuild.from_text((folder / REBUILD).read_text(encoding="utf-8"))
    # Each stage is a second of work behind seconds of imports.
    with stage_server() as environment:
        for number, entry in enumerate(entries):
            output = root / "rebuilt" / str(number)
            log.info("making %s again by the archive's own %s ...", entry.folder, entry.script)
            if (error := rebuild.run(entry, root, output, environment)) is not None:
                yield f"{entry.folder}: {entry.script} failed: {error}"
                continue
            yield from _compared(entry, folder, output, tolerance)


def _compared(entry: rebuild.Rebuild, folder: Path, output: Path, tolerance: ArtifactConfig) -> Iterator[str]:
    handed_on, made = (_files(where, entry.compared) for where in (folder / entry.folder, output))
    equal = 0
    for name in sorted(handed_on | made):
        label = f"{entry.folder}/{name}"
        if name not in made:
            yield f"{label}: is in the archive, and is not made of its raw scores"
        elif name not in handed_on:
            yield f"{label}: is made of the archive's raw scores, and is not in it"
        else:
            found = differences(label, folder / entry.folder / name, output / name, tolerance)
            yield from found
            equal += (folder / entry.folder / name).read_bytes() == (output / name).read_bytes()
    log.info("%s: %d of %d files are equal to the byte", entry.folder, equal, len(handed_on))


def _files(folder: Path, parts: list[str]) -> set[str]:
    found = [file for part in parts for file in [folder / part, *(folder / part).rglob("*")]]
    return {file.relative_to(folder).as_posix() for file in found if file.is_file()}


def lock_note(folder: Path, root: Path) -> str | None:
    """What to know of the packages that verify: whether they are those that the archive locks."""
    name = "envs/requirements.lock"
    theirs, ours = folder / SOURCE / name, root / name
    if ours.is_file() and theirs.is_file() and ours.read_bytes() == theirs.read_bytes():
        return None
    return f"the archive's {name} is not this checkout's: numbers may differ in their last digits"


def verify(path: Path, folder: Path) -> list[str]:
    """Everything; see :func:`integrity` and :func:`rebuilt`.

    Args:
        path: The archive.
        folder: An empty folder of its own.

    Returns:
        What is wrong; empty if nothing is.
    """
    unpacked = folder / "unpacked"
    problems = integrity(path, unpacked)
    if problems:
        return [*problems, "nothing was made again: the archive is not the one that was written"]
    log.info("%s: its digest and every member's are right", path.name)
    if note := lock_note(unpacked, ROOT):
        log.warning("%s", note)
    try:
        lay_out(unpacked, folder / "tree")
    except ConfigError as error:
        return [str(error)]
    return list(rebuilt(unpacked, folder / "tree"))
