"""The source tree at its git revision, with whatever differs from it here."""

from __future__ import annotations

import datetime
import hashlib
import io
import os
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from resalign.config.strict import ConfigError

# A note or a configuration is small; weights beside the code are to be ignored by git, and no part of the source.
MAX_UNTRACKED_BYTES = 20 << 20
# Folders and suffixes of a run's source: of the files that git does not track, only these are packed.
RUN_FOLDERS = ("config", "envs", "scripts", "slurm", "src", "workflow")
RUN_SUFFIXES = tuple(".csv .j2 .json .jsonl .lock .py .rst .sh .smk .tsv .txt .yaml .yml".split())
# Beside them, of a folder that is no git checkout.
ROOT_FILES = ("CITATION.cff", "LICENSE", "Makefile", "README.md", "pyproject.toml", "workflow/Snakefile")
_NEVER_SOURCE = ("__pycache__", ".egg-info", ".ipynb_checkpoints", "_cache")  # ends of folders' names
# A patch must not depend on who makes it.
_DIFF = "diff HEAD --binary --full-index --no-color --no-ext-diff --no-textconv --no-renames --unified=3".split()
_DIFF += ["--diff-algorithm=myers", "--src-prefix=a/", "--dst-prefix=b/"]


@dataclass(frozen=True)
class Source:
    """The source code that made the results.

    Attributes:
        revision: The commit; None where the folder is no git checkout, and ``files`` is simply what lies there.
        date: Of the commit (ISO 8601), or of the newest file.
        files: Content by path, at the revision.
        patch: The difference of the tracked files from the revision; may be empty.
        untracked: Files of a run that git neither tracks nor ignores; see :func:`is_run_file`.
        left_out: Names of the others that git neither tracks nor ignores.
    """

    revision: str | None
    date: str
    files: dict[str, bytes]
    patch: bytes = b""
    untracked: dict[str, bytes] | None = None
    left_out: tuple[str, ...] = ()

    @property
    def is_changed(self) -> bool:
        """Whether the source differs from its revision."""
        return bool(self.patch or self.untracked)


def read_source(root: Path) -> Source:
    """Reads the source below a folder.

    Raises:
        ConfigError: If git fails, or untracked files are too large to be source.
    """
    if not (root / ".git").exists():
        files = {path.relative_to(root).as_posix(): path for path in _plain_files(root)}
        newest = max((path.stat().st_mtime for path in files.values()), default=0)
        date = datetime.datetime.fromtimestamp(int(newest), datetime.UTC).isoformat()
        return Source(None, date, {name: path.read_bytes() for name, path in files.items()})
    revision, date = _git(root, "log", "-1", "--format=%H %cI").decode().split()
    files_at_revision: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(_git(root, "archive", "--format=tar", revision))) as tar:
        for member in tar:
            if member.isfile():
                stream = tar.extractfile(member)
                assert stream is not None
                files_at_revision[member.name] = stream.read()
            elif not member.isdir():
                raise ConfigError(f"{root}: the source has a link, {member.name}; commit the file itself")
    untracked, left_out = _untracked(root)
    return Source(revision, date, files_at_revision, _git(root, *_DIFF), untracked, left_out)


def is_run_file(name: str) -> bool:
    """Whether a file, by its path below the root, may be part of what a run is: the project's own folders hold these.

    Notes, logs, credentials and data of the user's own that lie in the clone are none.
    """
    path = PurePosixPath(name)
    folders = path.parts[:-1]
    if not folders or folders[0] not in RUN_FOLDERS or path.suffix not in RUN_SUFFIXES:
        return False
    return not any(folder.endswith(_NEVER_SOURCE) for folder in folders)


def fingerprint(root: Path) -> str:
    """A short text that changes with the source, for Snakemake to compare."""
    if not (root / ".git").exists():
        digest = hashlib.sha256()
        for path in _plain_files(root):
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
        return f"no revision, files {digest.hexdigest()}"
    digest = hashlib.sha256(_git(root, *_DIFF))
    for name, content in sorted(_untracked(root)[0].items()):
        digest.update(f"{name}\0".encode() + content + b"\0")
    return f"{_git(root, 'rev-parse', 'HEAD').decode().strip()}, difference {digest.hexdigest()}"


def apply_patch(patch: Path, root: Path) -> None:
    """Applies a patch to the files below ``root``, which is no git checkout.

    Raises:
        ConfigError: If it does not fit.
    """
    # A checkout around the folder would have git look for the files there.
    variables = {"GIT_CEILING_DIRECTORIES": str(root.resolve().parent), "GIT_CONFIG_GLOBAL": os.devnull}
    variables |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1"}  # no filter of the user's meets files of others
    _git(root, "apply", "--whitespace=nowarn", str(patch.resolve()), **variables)


def _untracked(root: Path) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Untracked files of a run, and names of all others."""
    names = _git(root, "ls-files", "--others", "--exclude-standard", "-z").decode().split("\0")
    files = [name for name in sorted(names) if name and (root / name).is_file()]
    paths = {name: root / name for name in files if is_run_file(name)}
    size = sum(path.stat().st_size for path in paths.values())
    if size > MAX_UNTRACKED_BYTES:
        largest = max(paths, key=lambda name: paths[name].stat().st_size)
        raise ConfigError(
            f"{root}: files that git does not track have {size >> 20} MB, such as {largest}; the archive takes them "
            f"for source, up to {MAX_UNTRACKED_BYTES >> 20} MB: have git ignore them, or move them"
        )
    left_out = tuple(name for name in files if name not in paths)
    return {name: path.read_bytes() for name, path in paths.items()}, left_out


def _plain_files(root: Path) -> list[Path]:
    """The files of a run in a folder that is no checkout, sorted."""
    files = [path for folder in RUN_FOLDERS for path in (root / folder).rglob("*") if path.is_file()]
    run_files = [path for path in files if is_run_file(path.relative_to(root).as_posix())]
    return sorted([*run_files, *(root / name for name in ROOT_FILES if (root / name).is_file())])


def _git(root: Path, *arguments: str, **variables: str) -> bytes:
    command = ["git", "-C", str(root), *arguments]
    try:
        finished = subprocess.run(command, capture_output=True, check=True, env={**os.environ, **variables})
    except FileNotFoundError:
        raise ConfigError("the source's revision is read by git, which is not installed; install it") from None
    except subprocess.CalledProcessError as error:
        message = error.stderr.decode(errors="replace").strip()
        raise ConfigError(f"'{' '.join(command[:4])} …' failed: {message}") from None
    return finished.stdout
