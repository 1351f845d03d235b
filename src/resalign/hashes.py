"""Size and sha256 of every file at the time when its job wrote it, checked wherever another job reads it.

A disk, a copy or a person may change a file later, and most formats do not notice. So every stage, when all else is
written, lists its files in ``hashes.json`` beside them, and every reader asks :func:`verified` before it reads. Sizes
alone are compared for all results before each run of the workflow (:func:`incomplete`); ``make verify`` compares all.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from resalign import shards
from resalign.files import whole

NAME = "hashes.json"
RECORD = "run.json"  # of the job that wrote a folder
RECORDS = (RECORD, "timing.json", NAME)  # what a stage itself writes beside what it makes
IMAGES = "images"  # of a run, beside its tiers: <prompt list>/step-<n>
FORMAT = "resalign hashes 1"
REMEDY = "remove it, and the next run makes it again"
NOT_KEPT = (
    "is no longer there: keep_images has removed it, or it was sampled again into another file; to have such images "
    "sampled again and kept, run Snakemake with --config keep_images=all --forcerun sample"
)
SHOWN = 12  # digits of a hash in a message
LOOKERS = 16  # at sizes, at once: each look may have to ask a file server
_BEING_WRITTEN: set[Path] = set()


class DamagedError(ValueError):
    """A file that is not what its job has written; the message names it and the remedy."""


@dataclass(frozen=True)
class Entry:
    """A file's content."""

    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, content: bytes | Path) -> Entry:
        """Of bytes, or of a file or a shard's member."""
        if isinstance(content, bytes):
            return cls(len(content), hashlib.sha256(content).hexdigest())
        with shards.opened(content) as stream:
            return cls(shards.size(content), hashlib.file_digest(stream, "sha256").hexdigest())


def file_hash(path: Path) -> str:
    """sha256 of a file or a shard's member; a file whose time has not changed is read once in a process."""
    stat = shards.holder(path).stat()
    return _hash(path.absolute(), stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=100_000)  # paths are absolute: the working directory may be another one later
def _hash(path: Path, _mtime: int, _size: int) -> str:
    return Entry.of(path).sha256


# --- lists of entries -------------------------------------------------------------------------------------------------


def to_text(entries: Mapping[str, Entry], kind: str = FORMAT) -> str:
    """Entries by name, in one spelling only and with a digest of their own, so that no bit of it changes unnoticed."""
    members = {name: asdict(entry) for name, entry in entries.items()}
    return _dump({"format": kind, "members": members, "sha256": _own_digest(members, kind)})


def from_text(text: bytes, where: object, kind: str = FORMAT) -> dict[str, Entry]:
    """The inverse of :func:`to_text`.

    Raises:
        DamagedError: If a single byte is not as it was written.
    """
    try:
        record = json.loads(text)
        members = {name: Entry(**entry) for name, entry in record["members"].items()}
        is_whole = to_text(members, kind).encode() == text
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{where}: cannot be read ({error})") from None
    if not is_whole:
        raise DamagedError(f"{where}: is not as it was written: its own digest, or its spelling, is another")
    return members


def _own_digest(members: object, kind: str) -> str:
    return hashlib.sha256(_dump({"format": kind, "members": members}).encode()).hexdigest()


def _dump(values: object) -> str:
    return json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


# --- writing ----------------------------------------------------------------------------------------------------------


def seal(folder: Path, parts: Iterable[str] | None = None) -> None:
    """Lists the files of a folder.

    Args:
        folder: Where a job has written its last file.
        parts: The job's files and folders, where those of other jobs lie beside them; None for all that is not hidden
            and not below another job's record.
    """
    names = sorted(_below(folder) if parts is None else _named(folder, parts))
    write(folder, {name: Entry.of(folder / name) for name in names})


def write(folder: Path, entries: Mapping[str, Entry]) -> None:
    """Lists files of a folder of which size and hash are known."""
    with whole(folder / NAME) as part:
        part.write_text(to_text(entries), encoding="utf-8")


@contextlib.contextmanager
def being_written(folder: Path) -> Iterator[None]:
    """Within the block this process writes there: the list, if there is one, is of an earlier attempt."""
    _BEING_WRITTEN.add(folder.absolute())
    try:
        yield
    finally:
        _BEING_WRITTEN.discard(folder.absolute())


def _named(folder: Path, parts: Iterable[str]) -> Iterator[str]:
    for part in (*parts, RECORD, "timing.json"):
        if (folder / part).is_dir():
            yield from (f"{part}/{name}" for name in _below(folder / part))
        elif (folder / part).is_file():
            yield part


def _below(folder: Path) -> Iterator[str]:
    """Names of the files below a folder, but for hidden ones, its list, and folders that another job has written."""
    for path, folders, files in os.walk(folder):
        inner = Path(path)
        if inner != folder and RECORD in files:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and name != NAME:
                yield (inner / name).relative_to(folder).as_posix()


# --- reading ----------------------------------------------------------------------------------------------------------


def verified(path: Path | str) -> Path:
    """A file, or a folder, of which every byte is as its job has written it; what no job has listed is the user's own.

    Raises:
        DamagedError: If it is not, if files that are listed are missing, or if it is an image that was not kept.
    """
    path = Path(path)
    is_folder = path.is_dir()
    for folder in (*([path] if is_folder else ()), *path.parents):
        if folder.absolute() in _BEING_WRITTEN:
            continue
        listed = read(folder)
        if listed is None:
            if folder in (path, path.parent) and _is_record(folder / RECORD):
                raise DamagedError(
                    f"{folder}: has a {RECORD} and no {NAME}: its job was cut short, or an older version made it; "
                    f"remove {folder / RECORD}, and the next run there makes it again"
                )
            continue
        name = path.relative_to(folder).as_posix()
        has_members = is_folder or path.suffix == shards.SUFFIX
        inside = [n for n in listed if name in (".", n) or n.startswith(f"{name}/")] if has_members else [name]
        members = [inner for inner in inside if inner in listed]
        for inner in members:
            if problem := difference(folder / inner, listed[inner]):
                raise DamagedError(f"{folder / inner}: {problem}; {REMEDY}")
        if members:
            break
        if _is_store(folder) and _size(path) is None:
            raise DamagedError(f"{path}: {NOT_KEPT}")
    return path


def check_listed(path: Path, sha256: str, manifest: str) -> None:
    """Raises DamagedError unless an image is the one that a job's manifest lists."""
    if _size(path) is None:
        verified(path)
    if _size(path) is None or file_hash(path) != sha256:
        raise DamagedError(f"{path}: is not the file that {manifest} lists; remove the list to have both made again")


def read(folder: Path) -> dict[str, Entry] | None:
    """The list of a folder; None if there is none.

    Raises:
        DamagedError: If the list itself is damaged.
    """
    try:
        stat = (folder / NAME).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    path = folder / NAME
    return _read(path.absolute(), path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=64)
def _read(_place: Path, path: Path, _mtime: int, _size: int) -> dict[str, Entry] | None:
    content = path.read_bytes()
    if FORMAT.encode() not in content and not any(record.is_file() for record in records_of(path.parent)):
        return None  # a file of the user's own
    try:
        return from_text(content, path)
    except DamagedError as error:
        raise DamagedError(f"{error}; {REMEDY}") from None


def _is_record(path: Path) -> bool:
    """Whether it is a stage's, and no file that the user calls so."""
    return path.is_file() and b'"source_sha256"' in path.read_bytes()


def difference(path: Path, entry: Entry) -> str | None:
    """In what a file is not as it is listed; None if it is."""
    size = _size(path)
    if size is None:
        return f"is missing, and {NAME} lists it"
    if size != entry.size_bytes:
        return f"has {size} bytes, its job wrote {entry.size_bytes}"
    sha256 = file_hash(path)
    return None if sha256 == entry.sha256 else f"has sha256 {sha256[:SHOWN]}…, its job wrote {entry.sha256[:SHOWN]}…"


def forget() -> None:
    """Has every file read again: only those whose times have changed are, otherwise."""
    _read.cache_clear()
    _hash.cache_clear()


# --- a whole tree of results ------------------------------------------------------------------------------------------


def incomplete(results: Path) -> Iterator[tuple[Path, str]]:
    """(folder, what is wrong) of each result of which a file is missing or has another size, by one look at each.

    Where the record is missing, Snakemake knows that the job has not ended.
    """
    with ThreadPoolExecutor(LOOKERS) as pool:
        for folder in _whole_folders(results):
            try:
                listed = json.loads((folder / NAME).read_bytes())["members"]
                sizes = {name: entry["size_bytes"] for name, entry in listed.items()}
            except (ValueError, LookupError, TypeError, AttributeError):
                yield folder, f"{folder / NAME}: cannot be read"
                continue
            present = dict(zip(sizes, pool.map(_size, (folder / name for name in sizes)), strict=True))
            wrong = [name for name, size in sizes.items() if present[name] != size]
            if wrong:
                size = present[first := wrong[0]]
                what = "is missing" if size is None else f"has {size} bytes, not {sizes[first]}"
                yield folder, f"{folder / first}: {what}" + (f", and {len(wrong) - 1} more" if wrong[1:] else "")


def problems(results: Path) -> Iterator[str]:
    """Everything that is not as it was written, a line each that names the file and the job that makes it again."""
    for folder in _whole_folders(results):
        try:
            listed = read(folder) or {}
        except DamagedError as error:
            yield f"{error} ({_maker(folder)})"
            continue
        for name, entry in listed.items():
            if problem := difference(folder / name, entry):
                yield f"{folder / name}: {problem}; {REMEDY} ({_maker(folder)})"
    for folder in _folders_with(results, RECORD):
        if not (folder / NAME).is_file():
            yield f"{folder}: has no {NAME}; remove {folder / RECORD}, and the next run makes it again"


def unlisted(results: Path) -> list[Path]:
    """Files that no job has listed: of jobs that write one file beside those of others, such as a table's LaTeX."""
    names = ((folder, name) for folder in sealed_folders(results) for name in (*(read(folder) or ()), NAME))
    listed = {shards.holder(folder / name).resolve() for folder, name in names}
    files = (folder / name for folder, names in _walk(results) for name in names if not name.startswith("."))
    return sorted(path for path in files if path.resolve() not in listed)


def sealed_folders(results: Path) -> list[Path]:
    """Folders that have a list, but for those that only keep a job's state."""
    return _folders_with(results, NAME)


def _whole_folders(results: Path) -> list[Path]:
    """Folders that have a list, and whose job has ended."""
    return [folder for folder in sealed_folders(results) if any(path.is_file() for path in records_of(folder))]


def _folders_with(results: Path, name: str) -> list[Path]:
    return sorted(folder for folder, names in _walk(results) if name in names)


def _walk(results: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder that is not hidden, linked ones too, with the names of its files."""
    for path, folders, names in os.walk(results, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield Path(path), names


def _size(path: Path) -> int | None:
    try:
        return shards.size(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def records_of(folder: Path) -> list[Path]:
    """Records of the jobs that make a listed folder: its own, or those of all tiers, which share a store of images."""
    return sorted(folder.parents[2].glob(f"*/{RECORD}")) if _is_store(folder) else [folder / RECORD]


def _is_store(folder: Path) -> bool:
    """Whether it is one of generated images, all of which are listed."""
    return folder.parent.parent.name == IMAGES


def _maker(folder: Path) -> str:
    return "made by the job of " + " and ".join(map(str, records_of(folder)))


def read_record(path: Path) -> dict[str, Any]:
    """A record.

    Raises:
        ValueError: If it is none.
    """
    values = json.loads(verified(path).read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"{path} is no record; delete it to have the job run again")
    return values
