"""Downloads the content of one address into a partial file that later attempts resume."""

from __future__ import annotations

import email.utils
import http.client
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path, PurePosixPath

from resalign.assets.source import BrokenFileError, BrokenOffError, FetchError, GatedError, RemovedError, Source
from resalign.hashes import RECORDS
from resalign.tracking import log

TIMEOUT_SECONDS = 60
CHUNK_BYTES = 1 << 20
# Limit of an asset of unknown size; the largest of the catalogue has 14 GB.
MOST_BYTES = 200 << 30
# Sizes in the catalogue are rounded.
SLACK_SHARE, SLACK_BYTES = 0.1, 1 << 20
# A server that sends less than this on the average of so long, or until it breaks off, is as good as silent.
LEAST_BYTES, PATIENCE_SECONDS = 1 << 20, 600.0
# A busy server says how long to wait: so often, and each time so long, that is done.
WAITS, LONGEST_WAIT_SECONDS = 5, 900.0


def receive(source: Source, address: str, part: Path) -> int | None:
    """Downloads into ``part``, resuming a partial file if the server's file is unchanged.

    A download that breaks off is gone on with, as long as each attempt brings something.

    Returns:
        The whole file's size, if the server gives it.

    Raises:
        FetchError: If the server refuses, breaks off, is as good as silent, or sends or announces more than the asset
            may have or the disk can hold.
    """
    while True:
        have = _size(part)
        try:
            return _receive(source, address, part)
        except BrokenOffError as error:
            if _size(part) - have < LEAST_BYTES:
                raise
            log.info("%s", error)


def _receive(source: Source, address: str, part: Path) -> int | None:
    """One attempt of :func:`receive`."""
    mark = validator(part)
    have = _size(part) if mark.is_file() else 0
    request = urllib.request.Request(address, headers={"User-Agent": "resalign"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", mark.read_text(encoding="latin-1"))
    try:
        with _opened(request) as response:
            resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
            if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                raise source.error(BrokenFileError, "the server sent another part than asked for", f"delete {part}")
            start = have if resumed else 0
            size = _announced(source, response, start)
            if size is not None:
                check_room(source, part.parent, size, start)
            tag = response.headers.get("ETag") or response.headers.get("Last-Modified")
            mark.write_text(tag, encoding="latin-1") if tag and tag.isprintable() else mark.unlink(missing_ok=True)
            _write(source, response, part, start, size)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            part.unlink()
            return _receive(source, address, part)
        raise _http_error(source, error) from None
    except (http.client.HTTPException, OSError) as error:
        raise _broken_off(source, part, first_line(error)) from None
    if size is not None and _size(part) < size:
        raise _broken_off(source, part, f"{_size(part)} of {size} bytes came")
    return size


def _opened(request: urllib.request.Request, waits: int = WAITS) -> HTTPResponse:
    """Opens an address; a busy server is asked again after the time that it asks for, ``waits`` times."""
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
        return response
    except urllib.error.HTTPError as error:
        seconds = _asked_wait(error)
        if seconds is None or not waits:
            raise
        error.close()
        log.info("%s answers %d and asks to wait for %.0f s", request.full_url, error.code, seconds)
    time.sleep(seconds)
    return _opened(request, waits - 1)


def _asked_wait(error: urllib.error.HTTPError) -> float | None:
    """Seconds that a busy server asks to wait [RFC 9110, 10.2.3]; None if it is not busy, does not say or asks more."""
    told = error.headers.get("Retry-After", "")
    if error.code not in (http.HTTPStatus.TOO_MANY_REQUESTS, http.HTTPStatus.SERVICE_UNAVAILABLE):
        return None
    if re.fullmatch(r"[0-9]{1,9}", told):
        seconds = float(told)
    elif date := email.utils.parsedate_tz(told):
        seconds = max(0.0, email.utils.mktime_tz(date) - time.time())
    else:
        return None
    return seconds if seconds <= LONGEST_WAIT_SECONDS else None


def _announced(source: Source, response: HTTPResponse, start: int) -> int | None:
    """The whole file's size by the server's headers, None without them; ``start`` bytes are there already."""
    length = response.headers.get("Content-Length")
    if length is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", length.strip()):
        problem = f"the server announces {length[:40]!r} bytes (Content-Length)"
        raise source.error(BrokenFileError, problem, "try again later")
    return start + int(length)


def check_room(source: Source, folder: Path, size: int, have: int = 0) -> None:
    """Refuses a download that is announced as larger than the asset may be, or than the disk can hold.

    Args:
        source: The asset.
        folder: Where it is to come.
        size: Bytes that are announced.
        have: Bytes of them that are there already.
    """
    if size > largest(source):
        raise _too_large(source, f"{size} bytes are announced")
    free = shutil.disk_usage(folder).free
    if size - have > free:
        problem = f"{size - have} bytes are to come, and the disk of {folder} has {free} bytes left"
        raise source.error(FetchError, problem, "free some space, run again")


def largest(source: Source) -> int:
    """The most bytes that an asset may have: slightly more than the catalogue states, else the limit of any file."""
    known = source.entry.size_bytes
    return MOST_BYTES if known is None else int(known * (1 + SLACK_SHARE)) + SLACK_BYTES


def _too_large(source: Source, problem: str) -> FetchError:
    remedies = "get it by hand and name it by 'path'", "correct its size_bytes in config/assets.yaml"
    remedy = f"do not use it; if its owners confirm that size, {remedies[source.entry.size_bytes is not None]}"
    return source.error(BrokenFileError, f"{problem}, and at most {largest(source)} are taken", remedy)


def _write(source: Source, response: HTTPResponse, part: Path, start: int, size: int | None) -> None:
    """Appends the answer behind the first ``start`` bytes of the file, with a progress bar."""
    from tqdm import tqdm

    label = f"fetch {source.name}" + (f" from byte {start}" if start else "")
    bar = tqdm(desc=label, total=size, initial=start, unit="B", unit_scale=True, mininterval=10, ascii=True, ncols=90)
    with bar, part.open("ab" if start else "wb") as stream:
        for chunk in _chunks(response):
            if stream.tell() + len(chunk) > largest(source):
                part.unlink()
                raise _too_large(source, "more bytes come than it may have")
            stream.write(chunk)
            bar.update(len(chunk))


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    """Yields the answer's content as it arrives.

    Raises:
        TimeoutError: If hardly anything comes: each byte would put off the connection's own timeout.
    """
    since, received = time.monotonic(), 0
    while chunk := response.read1(CHUNK_BYTES):
        yield chunk
        received += len(chunk)
        if time.monotonic() - since > PATIENCE_SECONDS:
            if received < LEAST_BYTES:
                raise TimeoutError(f"{received} bytes in {PATIENCE_SECONDS:.0f} s")
            since, received = time.monotonic(), 0


def _http_error(source: Source, error: urllib.error.HTTPError) -> FetchError:
    """Translates a server's refusal into an error that names the cause."""
    problem = f"the server answered {error.code} {' '.join(str(error.reason).split())[:200]}"
    if error.code in (401, 402, 403):
        return source.error(GatedError, problem, "log in or ask its owners for access")
    if error.code in (404, 410, 451):
        return source.error(RemovedError, problem, "look for a copy at its project's page")
    return source.error(FetchError, problem, "try again later")


def _broken_off(source: Source, part: Path, problem: str) -> FetchError:
    """An error for a broken connection, which says how much is already there."""
    have = _size(part)
    remedy = f"run again: it goes on from byte {have}" if have else "run again where there is internet"
    return source.error(BrokenOffError, f"the download broke off ({problem})", remedy)


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def file_name(source: Source, address: str) -> str:
    """The name of a URL's file: the last part of its path."""
    parts = urllib.parse.urlsplit(address)
    name = PurePosixPath(urllib.parse.unquote(parts.path)).name
    if parts.scheme not in ("http", "https"):
        raise source.error(FetchError, f"'{parts.scheme}' is no http address", "use http(s), or 'path' for a folder")
    if not name or name.startswith(".") or name in RECORDS or "\\" in name:
        raise source.error(FetchError, f"'{name}' can be no file's name", "give the address of a file")
    return name


def validator(part: Path) -> Path:
    """Path of the server's version mark (ETag) of a partial file."""
    return part.with_name(f"{part.name}.validator")


def first_line(error: BaseException) -> str:
    """The gist of a library's error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
