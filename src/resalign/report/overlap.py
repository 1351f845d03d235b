"""What a reader must know of the data that attacks train on: its harmful share, and what else has seen it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HOW = (
    "Images are compared pixel by pixel as training sees them, texts without case, spaces and punctuation: "
    "what is merely alike is not found."
)


def caveats(folder: str | None) -> tuple[str, ...]:
    """One sentence an attack that has something to tell; none if no attack has.

    Args:
        folder: Where scripts/overlap.py has written; None where nothing is attacked.
    """
    if folder is None:
        return ()
    found = json.loads((Path(folder) / "overlap.json").read_text(encoding="utf-8"))
    said = [
        f"Attack {attack} trains on {entry['train']['images']:,} images: {'; '.join(told)}."
        for attack, entry in found.items()
        if (told := _parts(entry))
    ]
    return (*said, HOW) if any(map(_overlaps, found.values())) else tuple(said)


def _overlaps(entry: dict[str, Any]) -> bool:
    return any(shared["images"] for kind in ("images", "prompts") for shared in entry[kind].values())


def _parts(entry: dict[str, Any]) -> list[str]:
    counts = entry["train"]["contamination"]
    asked = f"{100 * counts['asked']:g}\N{NO-BREAK SPACE}%" if counts else ""
    return [
        *([f"{counts['harmful']:,} harmful ({asked} asked)"] if counts else []),
        *(f"{s['images']:,} also in the {name}" for name, s in entry["images"].items() if s["images"]),
        *(f"{s['images']:,} with a prompt of {name} as caption" for name, s in entry["prompts"].items() if s["images"]),
    ]
