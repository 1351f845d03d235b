"""Downloads of assets: pinned, resumable, and checked before anything may use them."""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import hashlib
import http
import itertools
import os
import resource
import shutil
import urllib.parse
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from resalign.assets.contents import check_contents
from resalign.assets.download import check_room, file_name, first_line, receive, validator
from resalign.assets.hash_lock import read_lock, write_lock
from resalign.assets.pickles import check_pickles
from resalign.assets.source import (
    BrokenFileError,
    FetchError,
    GatedError,
    HashMismatchError,
    ManualDownloadError,
    NotPublicError,
    RemovedError,
    Source,
)
from resalign.config.assets import FETCHED, AssetConfig
from resalign.files import whole
from resalign.hashes import RECORDS
from resalign.tracking import log

if TYPE_CHECKING:
    from huggingface_hub import HfApi, RepoFile

# A listing that goes on beyond this never ends; the largest repositories in use have some hundred files.
MOST_LISTED = 100_000
# Ends of the hidden names of downloads that have not come to their end: the hub's library's, and this module's.
UNFINISHED = (".incomplete", ".download", ".download.validator")
# What a hub's file may have beyond its announced size before its download is ended: the limit holds for logs, too.
SLACK_BYTES = 1 << 30
# First bytes of a file by its suffix; other suffixes are only checked for not being a page.
MAGIC: dict[str, tuple[bytes, ...]] = {
    ".zip": (b"PK\x03\x04", b"PK\x05\x06"),
    ".parquet": (b"PAR1",),
    ".gz": (b"\x1f\x8b",),
    ".tgz": (b"\x1f\x8b",),
    ".png": (b"\x89PNG\r\n\x1a\n",),
    ".jpg": (b"\xff\xd8\xff",),
    ".pt": (b"PK\x03\x04", b"\x80"),
    ".pth": (b"PK\x03\x04", b"\x80"),
}
PAGE_STARTS = (b"<!doctype html", b"<html", b"<head", b"<?xml")


def fetch(
    name: str, asset: AssetConfig, folder: Path, mirror_root: Path | None = None, locks: Path | None = None
) -> dict[str, str]:
    """Fetches an asset into its folder; the only file written elsewhere is its lock.

    Args:
        name: The asset's key in the configuration.
        asset: Where it comes from: a hub repository, a URL, or by a person's hand the mirror root.
        folder: Where it belongs; what is there from an earlier attempt is gone on with.
        mirror_root: A folder that is looked into first, for ``name/revision`` or ``name/sha256``.
        locks: Folder of the hashes of files that have none published; None for no lock.

    Returns:
        sha256 of each of the asset's files, by path relative to ``folder``.

    Raises:
        FetchError: If the asset cannot be had, or is not what it should be; no such file is left under its own name.
    """
    if asset.origin not in FETCHED:
        raise ValueError(f"asset '{name}' comes from '{asset.origin}'; only {FETCHED} are fetched")
    source = Source(name, asset)
    source = Source(name, asset, read_lock(locks, source) if locks else {})
    folder.mkdir(parents=True, exist_ok=True)
    mirror = mirror_root / source.mirror if mirror_root else None
    if mirror is not None and mirror.is_dir():
        log.info("asset '%s' is taken from the mirror %s", name, mirror)
        hashes = _copy(source, mirror, folder)
    else:
        if mirror is not None:
            log.info("the mirror has no %s; asset '%s' is downloaded", mirror, name)
        hashes = _download_all(source, folder)
    for path in sorted(hashes):
        with _kept_if_good(folder, [path]):
            _check_md5(source, folder / path, path)
            check_pickles(source, folder / path, path)
    for pattern in source.entry.contents:
        with _kept_if_good(folder, fnmatch.filter(hashes, pattern)):
            check_contents(source, folder, hashes, pattern)
    if locks:
        write_lock(locks, source, hashes)
    _remove_others(folder, hashes)
    return hashes


def _remove_others(folder: Path, hashes: Collection[str]) -> None:
    """Removes files of an earlier pin of the asset, which would be taken for parts of this one."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts) and not path.name.endswith(UNFINISHED)
        if path.is_file() and not hidden and name.as_posix() not in {*hashes, *RECORDS}:
            log.info("%s is removed: it belongs to no file of this asset", path)
            path.unlink()


@contextlib.contextmanager
def _kept_if_good(folder: Path, paths: Iterable[str]) -> Iterator[None]:
    """Removes the files again if a check in the block refuses them."""
    try:
        yield
    except FetchError:
        for path in paths:
            (folder / path).unlink(missing_ok=True)
        raise


def _check_md5(source: Source, path: Path, label: str) -> None:
    """Checks a file against a published md5, if no sha256 is published; its sha256 is locked as well."""
    if (md5 := source.entry.md5) is None:
        return
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if digest != md5:
        raise source.error(HashMismatchError, f"{label} has md5 {digest}, not {md5}", "fetch it again")


def _download_all(source: Source, folder: Path) -> dict[str, str]:
    """Downloads the asset's files, or states why it cannot be downloaded."""
    if source.asset.manual:
        files = ", ".join(source.asset.files) or "every file"
        if source.entry.access == "not-public":
            raise source.error(NotPublicError, "was never published", f"make {files} yourself")
        if source.entry.access == "removed":
            raise source.error(RemovedError, "was removed", f"look for {files} elsewhere")
        raise source.error(ManualDownloadError, "no program can download it", f"get {files} from there by hand")
    if source.asset.hub:
        return _snapshot(source, folder)
    url = str(source.asset.url)
    addresses = [url + urllib.parse.quote(file) for file in source.asset.files] or [url]
    return {name: digest for address in addresses for name, digest in _download(source, address, folder).items()}


def check_file(source: Source, path: Path, label: str, *, size: int | None = None, sha256: str | None = None) -> str:
    """Checks size, then first bytes, then hash: the cheap checks give the clearer messages.

    Args:
        source: The asset, for messages.
        path: The file.
        label: The file's name; its suffix determines the kind it must have.
        size: Expected bytes, where known.
        sha256: Expected hash from its server, besides the published or locked one.

    Returns:
        Its sha256.
    """
    if not path.is_file():
        raise source.error(BrokenFileError, f"{label} was not downloaded", "run again to fetch it")
    size_bytes = path.stat().st_size
    if size is not None and size_bytes != size:
        raise source.error(BrokenFileError, f"{label} has {size_bytes} bytes, not {size}", "run again to fetch it anew")
    with path.open("rb") as stream:
        head = stream.read(512)
    _check_magic(source, label, head)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    for expected, source_of_hash in ((source.expected(label), "as pinned"), (sha256, "as its server says")):
        if expected is not None and digest != expected:
            problem = f"{label} has sha256 {digest}, not {expected} {source_of_hash}"
            raise source.error(
                HashMismatchError, problem, "fetch it again; if it stays so, its owners changed it: ask them"
            )
    return digest


def _check_magic(source: Source, label: str, head: bytes) -> None:
    """Refuses a web page, a Git LFS pointer and a file that does not begin as its suffix demands."""
    suffix = PurePosixPath(label).suffix.lower()
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(PAGE_STARTS) and suffix not in (".html", ".xml"):
        problem = f"a web page came instead of {label}"
        raise source.error(ManualDownloadError, problem, "open the address in a browser, log in or confirm there")
    if head.startswith(b"version https://git-lfs"):
        raise source.error(
            BrokenFileError, f"{label} is a Git LFS pointer, not the file", "run 'git lfs pull' in its clone"
        )
    expected = MAGIC.get(suffix)
    if (expected and not head.startswith(expected)) or (suffix == ".safetensors" and head[8:9] != b"{"):
        raise source.error(BrokenFileError, f"{label} is no {suffix} file (it begins {head[:8]!r})", "fetch it anew")


def _selected(source: Source, paths: Iterable[str]) -> list[str]:
    """The paths that the asset's patterns name, all if it has none; every pattern must name one."""
    paths = sorted(paths)
    patterns = source.asset.files or ("*",)
    for pattern in patterns:
        if not fnmatch.filter(paths, pattern):
            raise source.error(
                RemovedError, f"no file there matches '{pattern}'", f"correct assets.{source.name}.files"
            )
    chosen = [path for path in paths if any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)]
    unsafe = [path for path in chosen if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts]
    if unsafe:
        raise source.error(BrokenFileError, f"{unsafe} lie outside the asset's folder", "do not use this asset")
    if source.asset.sha256 and len(chosen) != 1:
        problem = f"a sha256 is given, but {len(chosen)} files are named"
        raise source.error(FetchError, problem, f"name one file in assets.{source.name}.files")
    return chosen


def _copy(source: Source, mirror: Path, folder: Path) -> dict[str, str]:
    """Copies the files of a mirror, each checked."""
    if source.asset.url:
        paths = list(source.asset.files) or [file_name(source, source.asset.url)]
        lacking = [path for path in paths if not (mirror / path).is_file()]
        if lacking:
            raise source.error(RemovedError, f"the mirror {mirror} lacks {', '.join(lacking)}", "add it there")
    else:
        files = (path.relative_to(mirror) for path in mirror.rglob("*") if path.is_file())
        # A mirror may be a folder that was fetched elsewhere: its records and caches are not the asset's.
        visible = (path for path in files if not any(part.startswith(".") or part in RECORDS for part in path.parts))
        paths = _selected(source, (path.as_posix() for path in visible))
    hashes = {}
    for path in paths:
        hashes[path] = check_file(source, mirror / path, path)
        with whole(folder / path) as part:
            shutil.copyfile(mirror / path, part)
    return hashes


def _snapshot(source: Source, folder: Path) -> dict[str, str]:
    """Downloads a hub repository at its pinned commit, and checks its files against the hashes of the commit."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    # Both would write caches outside the asset's folder. The library reads its variables once, maybe before this.
    constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_TELEMETRY = True
    repo_id, repo_type, revision = str(source.asset.hub), source.asset.repo_type, source.asset.revision
    for left in folder.glob(".cache/huggingface/**/*.incomplete"):
        left.unlink()  # by a process that was killed; the library begins such a file anew
    try:
        listed = _listed(source, huggingface_hub.HfApi())
        chosen = _selected(source, listed)
        sizes = [listed[path].size for path in chosen]
        here = [folder / path for path in chosen]
        check_room(source, folder, sum(sizes), have=sum(path.stat().st_size for path in here if path.is_file()))
        with _no_file_beyond(max(sizes) + SLACK_BYTES):
            huggingface_hub.snapshot_download(
                repo_id,
                repo_type=repo_type,
                revision=revision,
                local_dir=folder,
                allow_patterns=[glob.escape(path) for path in chosen],
            )
    # errors.HTTPError is the HTTP client's own: a connection that fails is no OSError there.
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
        raise _hub_error(source, error) from None
    return {path: _check_listed(source, folder / path, listed[path]) for path in chosen}


def _hub_error(source: Source, error: BaseException) -> FetchError:
    """Translates the hub library's error into one that names the cause."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # which the library hides behind a file that is not on this disk
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if isinstance(error, errors.GatedRepoError):
        remedy = "accept its terms on its page of the hub, then set HF_TOKEN to a token of that account"
        return source.error(GatedError, first_line(error), remedy)
    absent = errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError
    if isinstance(error, (*absent, errors.DisabledRepoError)):
        remedy = "if it is private, set HF_TOKEN; if it was removed or renamed, look for its new id"
        return source.error(RemovedError, first_line(error), remedy)
    if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
        return source.error(GatedError, first_line(error), "set HF_TOKEN to a valid token that may read it")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return source.error(FetchError, "HF_HUB_OFFLINE is set", "unset it where there is internet")
    return source.error(FetchError, f"the download failed ({first_line(error)})", "try again later")


def _listed(source: Source, api: HfApi) -> dict[str, RepoFile]:
    """Lists every file of a hub repository at its commit; offline, snapshot_download takes any folder for complete.

    Raises:
        BrokenFileError: If the list does not end, or is none of files with sizes.
    """
    import huggingface_hub

    asset = source.asset
    tree = api.list_repo_tree(str(asset.hub), repo_type=asset.repo_type, revision=asset.revision, recursive=True)
    try:
        entries = list(itertools.islice(tree, MOST_LISTED + 1))
        files = {entry.path: entry for entry in entries if isinstance(entry, huggingface_hub.RepoFile)}
        wrong = [path for path, entry in files.items() if type(entry.size) is not int or entry.size < 0]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        problem = f"the hub's list of its files cannot be read ({type(error).__name__}: {first_line(error)})"
        raise source.error(BrokenFileError, problem, "try again later") from None
    if len(entries) > MOST_LISTED or wrong:
        fault = (
            f"gives {wrong[0]!r} the size {files[wrong[0]].size!r}" if wrong else f"has more than {MOST_LISTED} entries"
        )
        raise source.error(BrokenFileError, f"the hub's list of its files {fault}", "do not use this asset")
    return files


@contextlib.contextmanager
def _no_file_beyond(size: int) -> Iterator[None]:
    """Limits the size of files that this process can write: the hub's library compares sizes only afterwards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    bounds = [size, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _check_listed(source: Source, path: Path, listed: RepoFile) -> str:
    """Holds a file against its commit: by sha256 if it is in LFS, else by its Git blob id."""
    try:
        published = listed.lfs.sha256 if listed.lfs else None
        digest = check_file(source, path, listed.path, size=listed.size, sha256=published)
        if not listed.lfs:
            content = path.read_bytes()
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            if blob != listed.blob_id:
                problem = f"{listed.path} has Git blob id {blob}, the commit says {listed.blob_id}"
                raise source.error(HashMismatchError, problem, "run again to fetch it anew")
    except FetchError:
        path.unlink(missing_ok=True)  # else it counts as downloaded
        raise
    return digest


def _download(source: Source, address: str, folder: Path) -> dict[str, str]:
    """Downloads one file and checks it before it gets its name."""
    name = file_name(source, address)
    target, part = folder / name, folder / f".{name}.download"
    if target.is_file():  # of an earlier attempt, which checked it before it got its name
        try:
            return {name: check_file(source, target, name)}
        except FetchError as error:
            log.info("%s is fetched again: %s", target, error)
            target.unlink()
    size = receive(source, address, part)
    try:
        digest = check_file(source, part, name, size=size)
    except FetchError:
        part.unlink()
        raise
    finally:
        validator(part).unlink(missing_ok=True)
    os.replace(part, target)
    return {name: digest}
