"""Prepares members for publication: secrets are refused, and paths of this machine are shortened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from resalign import disclosure
from resalign.artifact import layout
from resalign.artifact.source import Source
from resalign.config.closure import ROOT
from resalign.config.strict import ConfigError

Members = dict[str, bytes | Path]
MAX_NAMED = 10  # files in one line of the log or of an error
_HEAD_BYTES = 1 << 13  # enough to tell text from weights, images and tables
# As git has them, so that the patch fits, as the user wrote them, or made of what is published.
_AS_THEY_ARE = (f"{layout.SOURCE}/", layout.PATCH, f"{layout.UNTRACKED}/", "inputs/", "config/")


def published(members: Members) -> Members:
    """The members with this machine's folders shortened in every record, log and page.

    Raises:
        ConfigError: If a member's name or content looks like a secret; the message does not repeat the secret.
    """
    readable: Members = {}
    problems: dict[str, str] = {}
    for name, content in members.items():
        file, remedy = _origin(name, content)
        if disclosure.secret_name(file):
            problems[f"{file} (its name)"] = remedy
        readable[name] = content
        text = _text(content)
        if text is None:
            continue
        problems |= {f"{file}, line {number} ({kind})": remedy for number, kind in disclosure.secrets(text)}
        short = text if name.startswith(_AS_THEY_ARE) else disclosure.without_places(text, [ROOT])
        if short != text:
            readable[name] = short.encode("utf-8", errors="surrogateescape")
    if problems:
        named, remedies = _few(list(problems)), " ".join(dict.fromkeys(problems.values()))
        raise ConfigError(
            f"the archive would publish what looks like a secret: {named}. {remedies} "
            f"A line that only looks so may say '{disclosure.ALLOWED}'"
        )
    return readable


def _origin(name: str, content: bytes | Path) -> tuple[str, str]:
    """The file behind a member, and the remedy if it has a secret, for messages."""
    if name == layout.PATCH:
        return "the uncommitted changes (git diff HEAD)", "Take it out of the changed files."
    for folder, remedy in (
        (f"{layout.SOURCE}/", "Commit the file without it, and revoke it: whoever has the repository has it."),
        (f"{layout.UNTRACKED}/", "Remove it, or have git ignore the file."),
    ):
        if name.startswith(folder):
            return name.removeprefix(folder), remedy
    return str(content) if isinstance(content, Path) else name, "Take it out of the file that says it, and run again."


def _text(content: bytes | Path) -> str | None:
    """A member's content if it is text; bytes that are not UTF-8 become surrogates, and are written back unchanged."""
    if isinstance(content, bytes):
        head = content[:_HEAD_BYTES]
    else:
        with content.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    if b"\0" in head:
        return None
    whole = content if isinstance(content, bytes) else content.read_bytes()
    return whole.decode("utf-8", errors="surrogateescape")


def listing(members: Mapping[str, bytes | Path], source: Source) -> Iterator[str]:
    """Log lines: packed folders with sizes, packed files that git does not track, files that are left out."""
    sizes = {name: len(c) if isinstance(c, bytes) else c.stat().st_size for name, c in members.items()}
    counts, totals = Counter[str](), Counter[str]()
    for name, size in sizes.items():
        folder = "/".join(PurePosixPath(name).parts[:-1][:2])
        counts[folder] += 1
        totals[folder] += size
    for folder in sorted(counts):
        yield f"packed: {folder or '.'}/: {counts[folder]} files, {totals[folder]:,} bytes"
    for name in source.untracked or {}:
        yield f"packed, though git does not track it: {name}, {sizes[f'{layout.UNTRACKED}/{name}']:,} bytes"
    if source.left_out:
        yield f"left out, as git does not track it and no run reads it: {_few(list(source.left_out))}"


def _few(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"{', '.join(names[:MAX_NAMED])}{more}"
