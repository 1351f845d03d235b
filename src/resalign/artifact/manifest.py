"""The manifest: size and sha256 of every member, in one spelling only, and with a digest of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

FORMAT = "resalign artifact 1"
PROVENANCE = "provenance/"  # below it lies what differs between two runs, its own manifest included
MANIFESTS = ("manifest.json", f"{PROVENANCE}manifest.json")


class ManifestError(ValueError):
    """A manifest that was not written so."""


@dataclass(frozen=True)
class Entry:
    """A member's content."""

    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, content: bytes | Path) -> Entry:
        """Of bytes, or of a file."""
        if isinstance(content, bytes):
            return cls(len(content), hashlib.sha256(content).hexdigest())
        with content.open("rb") as stream:
            return cls(content.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest())


def covers(manifest: str, member: str) -> bool:
    """Whether a manifest, by its name, has an entry for a member: each for its own part, and for no manifest."""
    return member not in MANIFESTS and member.startswith(PROVENANCE) == manifest.startswith(PROVENANCE)


def to_text(entries: Mapping[str, Entry]) -> str:
    """The manifest of some members."""
    members = {name: asdict(entry) for name, entry in entries.items()}
    return _dump({"format": FORMAT, "members": members, "sha256": _own_digest(members)})


def from_text(text: bytes, name: str) -> dict[str, Entry]:
    """Reads a manifest.

    Raises:
        ManifestError: If a single byte of it is not as it was written.
    """
    try:
        found = json.loads(text)
        members = {member: Entry(**entry) for member, entry in found["members"].items()}
        is_whole = found["sha256"] == _own_digest(found["members"]) and to_text(members).encode() == text
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ManifestError(f"{name}: cannot be read ({error})") from None
    if not is_whole:
        raise ManifestError(f"{name}: is not as it was written: its own digest, or its spelling, is another")
    return members


def _own_digest(members: object) -> str:
    return hashlib.sha256(_dump({"format": FORMAT, "members": members}).encode()).hexdigest()


def _dump(values: object) -> str:
    return json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
