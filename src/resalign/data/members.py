"""Reads files of a folder, zip or tar one at a time; no path from an archive is ever written to."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import lzma
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from resalign.config.captions import CAPTION_TABLES
from resalign.config.references import is_inside
from resalign.errors import DataError
from resalign.hashes import RECORDS
from resalign.tracking import log

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz")
# A 512 x 512 PNG has less than 1 MB; ArtBench's largest originals a few tens.
MAX_FILE_BYTES = 256 << 20
MAX_FILES = 2_000_000
# What Python's readers of archives raise on broken ones.
BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    lzma.LZMAError,
    NotImplementedError,
    UnicodeDecodeError,
    zlib.error,
    struct.error,
)
# So many of what is left out are named; the rest are counted.
NAMED = 3
REFUSED = "this archive is broken or made to do harm: do not use it"


@dataclass(frozen=True)
class Members:
    """Files by name.

    Attributes:
        label: Name of the folder or archive, for messages.
        sizes: Bytes of each by its name, a relative path with forward slashes.
        open: Reads one file by its name.
        has: Whether there is a file of a name that ``sizes`` does not count: hidden, or behind a linked folder.
    """

    label: str
    sizes: dict[str, int]
    open: Callable[[str], bytes]
    has: Callable[[str], bool] = lambda name: False

    @property
    def names(self) -> list[str]:
        """Sorted names."""
        return sorted(self.sizes)

    def find(self, name: str) -> str | None:
        """The actual name of a file that a table may spell in another Unicode form; None if there is no such file.

        macOS writes decomposed names (NFD), while tables mostly have composed ones (NFC).

        Raises:
            DataError: If several files have that name but for their spelling.
        """
        if name in self.sizes or self.has(name):
            return name
        alike = self._by_spelling.get(composed(name), [])
        if len(alike) > 1:
            raise DataError(f"{self.label}: {name!r} may be any of {[ascii(n) for n in alike]}; rename all but one")
        return alike[0] if alike else None

    @functools.cached_property
    def _by_spelling(self) -> dict[str, list[str]]:
        by_spelling: dict[str, list[str]] = {}
        for name in self.sizes:
            by_spelling.setdefault(composed(name), []).append(name)
        return by_spelling

    def below(self, folder: str) -> Members:
        """Only the files below a folder, under the same names; all if ``folder`` is empty."""
        start = composed(f"{folder.strip('/')}/") if folder else ""
        return dataclasses.replace(
            self, sizes={n: size for n, size in self.sizes.items() if composed(n).startswith(start)}
        )

    def read(self, name: str) -> bytes:
        """The whole content of one file.

        Raises:
            DataError: If there is none of that name, or its size differs from its table.
        """
        if name not in self.sizes:
            raise DataError(f"{self.label}: has no '{name}'; it has {len(self.sizes)} files such as {self.names[:3]}")
        if self.sizes[name] > MAX_FILE_BYTES:
            raise DataError(f"{self.label}: '{name}' has {self.sizes[name]} bytes; at most {MAX_FILE_BYTES} are read")
        content = self.open(name)
        if len(content) != self.sizes[name]:
            raise DataError(
                f"{self.label}: '{name}' does not have the {self.sizes[name]} bytes of its entry; {REFUSED}"
            )
        return content


@contextlib.contextmanager
def open_members(path: Path) -> Iterator[Members]:
    """Opens a folder, an archive, or the one archive in a folder without tables and folders (as an asset's does).

    Raises:
        DataError: If it is missing or broken, or if a name in it leads out of it.
    """
    path = _single_archive(path)
    try:
        if path.is_dir():
            yield _of_folder(path)
        elif path.suffix == ".zip":
            with _open_zip(path) as archive:
                yield _of_zip(path, archive)
        elif path.name.endswith(ARCHIVES):
            with tarfile.open(path) as tar:
                yield _of_tar(path, tar)
        else:
            raise DataError(f"{path}: no such folder or archive ({', '.join(ARCHIVES)})")
    except (*BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk; a damaged gzip or bzip2 stream is an OSError, too, of no number
        raise DataError(f"{path}: not a whole archive ({' '.join(str(error).split())}); fetch it again") from None


def _single_archive(path: Path) -> Path:
    """The one archive in an asset's folder, else the path itself; the log lists files that are left out."""
    if not path.is_dir():
        return path
    files = [file for file in path.iterdir() if not file.name.startswith(".") and file.name not in RECORDS]
    archives = [file for file in files if file.name.endswith(ARCHIVES)]
    # Tables and folders are of images in place: an archive beside them may be anything, such as a copy of them.
    if len(archives) != 1 or any(file.name in CAPTION_TABLES or file.is_dir() for file in files):
        return path
    log_left_out(str(path), f"files beside {archives[0].name}", [file.name for file in files if file != archives[0]])
    return archives[0]


def folder_in_place(folder: Path) -> Members:
    """The files of a user's own folder, which may contain links to anywhere."""
    sizes = {name: path.stat().st_size for name, path in _shown(folder) if path.is_file()}
    return Members(
        str(folder), sizes, lambda name: (folder / name).read_bytes(), lambda name: (folder / name).is_file()
    )


def _of_folder(folder: Path) -> Members:
    root, sizes = folder.resolve(), {}
    for name, path in _shown(folder):
        _check_text(folder, name)
        if path.is_symlink() and (path.is_dir() or not path.resolve().is_relative_to(root)):
            raise DataError(f"{path}: a link out of its folder, or to a folder; put the files themselves there")
        if path.is_file():
            sizes[name] = path.stat().st_size
    return Members(str(folder), sizes, lambda name: (folder / name).read_bytes())


def _shown(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of everything below a folder that is not hidden."""
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if not any(part.startswith(".") for part in parts):
            yield "/".join(parts), path


def _open_zip(path: Path) -> zipfile.ZipFile:
    """A zip file whose names are UTF-8 unless they cannot be: macOS writes UTF-8 without the flag for it."""
    try:
        return zipfile.ZipFile(path, metadata_encoding="utf-8")
    except UnicodeDecodeError:
        return zipfile.ZipFile(path)


def _of_zip(path: Path, archive: zipfile.ZipFile) -> Members:
    """The files of a zip; links, encrypted files and entries outside the archive are refused."""

    def entries() -> Iterator[tuple[str, int, zipfile.ZipInfo]]:
        for info in archive.infolist():
            # orig_filename: zipfile itself cuts a name at a zero byte. Windows' own tools separate folders by "\\".
            name = info.orig_filename.replace("\\", "/")
            _check_name(path, name)
            if info.flag_bits & 1:
                raise DataError(f"{path}: '{name}' is encrypted; unpack it by hand into a folder")
            if info.header_offset < 0:  # zipfile would ask the file for what is before its beginning
                raise DataError(f"{path}: '{name}' lies outside the archive; {REFUSED}")
            if stat.S_ISLNK(info.external_attr >> 16):
                raise DataError(f"{path}: '{name}' is a link; {REFUSED}")
            if not name.endswith("/"):
                yield name, info.file_size, info

    return _of_entries(path, entries(), archive.open)


def _of_tar(path: Path, tar: tarfile.TarFile) -> Members:
    """The files of a tar; links and devices are refused."""

    def entries() -> Iterator[tuple[str, int, tarfile.TarInfo]]:
        for info in tar:
            _check_name(path, info.name)
            if not (info.isfile() or info.isdir()):
                raise DataError(f"{path}: '{info.name}' is a link or a device; {REFUSED}")
            if info.isfile():
                yield info.name, info.size, info

    return _of_entries(path, entries(), tar.extractfile)


def _of_entries(path: Path, entries: Iterator[tuple[str, int, Any]], open_entry: Callable[[Any], Any]) -> Members:
    """An archive's files without those that file managers add; each is read to one byte beyond its declared size."""
    sizes: dict[str, int] = {}
    infos: dict[str, Any] = {}
    for raw, size, info in entries:
        name = PurePosixPath(raw).as_posix()
        if any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts):
            continue
        if name in sizes:
            raise DataError(f"{path}: '{name}' is there twice; {REFUSED}")
        if len(sizes) >= MAX_FILES:
            raise DataError(f"{path}: more than {MAX_FILES} files; {REFUSED}")
        sizes[name], infos[name] = size, info

    def read(name: str) -> bytes:
        with open_entry(infos[name]) as stream:
            content: bytes = stream.read(sizes[name] + 1)
        return content

    return Members(str(path), sizes, read)


def composed(name: str) -> str:
    """A name in Unicode's composed form NFC; macOS writes the decomposed form."""
    return unicodedata.normalize("NFC", name)


def log_left_out(label: str, what: str, names: Iterable[str]) -> None:
    """Logs which files are ignored; a stage's own records are not mentioned."""
    ignored = sorted(name for name in names if PurePosixPath(name).name not in RECORDS)
    if ignored:
        more = ", …" if len(ignored) > NAMED else ""
        log.info("%s: left out: %d %s: %s%s", label, len(ignored), what, ", ".join(ignored[:NAMED]), more)


def _check_name(path: Path, name: str) -> None:
    if not is_inside(name) and name not in (".", "./"):
        raise DataError(f"{path}: the name {name!r} leads out of the archive's folder; {REFUSED}")
    _check_text(path, name)


def _check_text(path: Path, name: str) -> None:
    """Refuses a name that is not UTF-8: Python represents it by surrogates, which no table can hold."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f"{path}: the name {ascii(name)} is no text in UTF-8; rename the file") from None
