"""Locks the hashes of files that have no published one: recorded at the first fetch, enforced from then on."""

from __future__ import annotations

import json
from pathlib import Path

from resalign.assets.source import HashMismatchError, Source
from resalign.files import whole


def read_lock(folder: Path, source: Source) -> dict[str, str]:
    """sha256 by file; empty if the asset is fetched for the first time, or at another pin.

    Args:
        folder: Has one file an asset, so that concurrent jobs never write the same file.
        source: The asset.

    Raises:
        FetchError: If the lock itself cannot be read.
    """
    path = lock_path(folder, source)
    if not path.is_file():
        return {}
    try:
        lock = json.loads(path.read_text(encoding="utf-8"))
        return dict(lock["sha256"]) if (lock["origin"], lock["pin"]) == (source.origin, source.pin) else {}
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        problem = f"its lock {path} cannot be read ({error})"
        raise source.error(HashMismatchError, problem, "restore it with 'git checkout', or delete it") from None


def write_lock(folder: Path, source: Source, hashes: dict[str, str]) -> None:
    """Locks every file that has no published hash; an unchanged lock is not rewritten."""
    locked = {**source.locked, **{file: sha for file, sha in hashes.items() if source.published(file) is None}}
    if locked == source.locked:
        return
    lock = {"origin": source.origin, "pin": source.pin, "sha256": locked}
    with whole(lock_path(folder, source)) as part:
        part.write_text(json.dumps(lock, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def lock_path(folder: Path, source: Source) -> Path:
    """Path of an asset's lock."""
    return folder / f"{source.name}.json"
