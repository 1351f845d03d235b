"""The manifests of an archive: size and sha256 of every member, each for its own part."""

from __future__ import annotations

FORMAT = "resalign artifact 1"
PROVENANCE = "provenance/"  # below it lies what differs between two runs, its own manifest included
MANIFESTS = ("manifest.json", f"{PROVENANCE}manifest.json")


def covers(manifest: str, member: str) -> bool:
    """Whether a manifest, by its name, has an entry for a member: each for its own part, and for no manifest."""
    return member not in MANIFESTS and member.startswith(PROVENANCE) == manifest.startswith(PROVENANCE)
