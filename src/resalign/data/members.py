"""The files of a folder, a zip or a tar archive, read one at a time: nothing is ever unpacked to a path of theirs."""

from __future__ import annotations

import contextlib
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from resalign.data.images import DataError, is_inside

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz")
# A 512 x 512 PNG has less than 1 MB; ArtBench's largest originals a few tens.
MAX_FILE_BYTES = 256 << 20
MAX_FILES = 2_000_000
REFUSED = "this archive is broken or made to do harm: do not use it"


@dataclass(frozen=True)
class Members:
    """Files by name.

    Attributes:
        label: What holds them, for messages.
        sizes: Bytes of each by its name, a relative path with forward slashes.
        open: The content of one.
    """

    label: str
    sizes: dict[str, int]
    open: Callable[[str], bytes]

    @property
    def names(self) -> list[str]:
        """Sorted names."""
        return sorted(self.sizes)

    def read(self, name: str) -> bytes:
        """The whole content of one file.

        Raises:
            DataError: If there is none of that name, or it is larger or other than its table says.
        """
        if name not in self.sizes:
            raise DataError(f"{self.label}: has no '{name}'; it has {len(self.sizes)} files such as {self.names[:3]}")
        if self.sizes[name] > MAX_FILE_BYTES:
            raise DataError(f"{self.label}: '{name}' has {self.sizes[name]} bytes; at most {MAX_FILE_BYTES} are read")
        content = self.open(name)
        if len(content) != self.sizes[name]:
            raise DataError(
                f"{self.label}: '{name}' has not the {self.sizes[name]} bytes that are announced; {REFUSED}"
            )
        return content


@contextlib.contextmanager
def open_members(path: Path) -> Iterator[Members]:
    """Opens a folder, an archive, or a folder that holds nothing but one archive (as an asset's does).

    Raises:
        DataError: If it is missing or broken, or if a name in it leads out of it.
    """
    path = _single_archive(path)
    try:
        if path.is_dir():
            yield _of_folder(path)
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                yield _of_zip(path, archive)
        elif path.name.endswith(ARCHIVES):
            with tarfile.open(path) as tar:
                yield _of_tar(path, tar)
        else:
            raise DataError(f"{path}: no such folder or archive ({', '.join(ARCHIVES)})")
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError) as error:
        raise DataError(f"{path}: not a whole archive ({error}); fetch it again") from None


def _single_archive(path: Path) -> Path:
    """The one archive in an asset's folder, else the path itself."""
    if not path.is_dir():
        return path
    archives = [file for file in path.iterdir() if file.name.endswith(ARCHIVES)]
    return archives[0] if len(archives) == 1 else path


def _of_folder(folder: Path) -> Members:
    root = folder.resolve()
    sizes = {}
    for file in folder.rglob("*"):
        if not file.is_file() or any(part.startswith(".") for part in file.relative_to(folder).parts):
            continue
        if not file.resolve().is_relative_to(root):
            raise DataError(f"{file}: a link out of its folder; put the file itself there")
        sizes[file.relative_to(folder).as_posix()] = file.stat().st_size
    return Members(str(folder), sizes, lambda name: (folder / name).read_bytes())


def _of_zip(path: Path, archive: zipfile.ZipFile) -> Members:
    sizes: dict[str, int] = {}
    for info in archive.infolist():
        # orig_filename: zipfile itself cuts a name at a zero byte.
        _check_name(path, info.orig_filename)
        if info.flag_bits & 1:
            raise DataError(f"{path}: '{info.filename}' is encrypted; unpack it by hand into a folder")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise DataError(f"{path}: '{info.filename}' is a link; {REFUSED}")
        if not info.is_dir():
            _add(path, sizes, info.filename, info.file_size)

    def read(name: str) -> bytes:
        with archive.open(name) as stream:
            return stream.read(sizes[name] + 1)

    return Members(str(path), sizes, read)


def _of_tar(path: Path, tar: tarfile.TarFile) -> Members:
    sizes: dict[str, int] = {}
    found: dict[str, tarfile.TarInfo] = {}
    for info in tar:
        _check_name(path, info.name)
        if not (info.isfile() or info.isdir()):
            raise DataError(f"{path}: '{info.name}' is a link or a device; {REFUSED}")
        if info.isfile():
            name = PurePosixPath(info.name).as_posix()
            _add(path, sizes, name, info.size)
            found[name] = info

    def read(name: str) -> bytes:
        stream = tar.extractfile(found[name])
        assert stream is not None
        with stream:
            return stream.read(sizes[name] + 1)

    return Members(str(path), sizes, read)


def _check_name(path: Path, name: str) -> None:
    if not is_inside(name) and name not in (".", "./"):
        raise DataError(f"{path}: the name {name!r} leads out of the archive's folder; {REFUSED}")


def _add(path: Path, sizes: dict[str, int], name: str, size: int) -> None:
    """Notes a file, but for what file managers leave behind."""
    if any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts):
        return
    if name in sizes:
        raise DataError(f"{path}: '{name}' is there twice; {REFUSED}")
    if len(sizes) >= MAX_FILES:
        raise DataError(f"{path}: more than {MAX_FILES} files; {REFUSED}")
    sizes[name] = size
