"""Caveats of the attacks' data: its harmful share, and its overlap with other sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from resalign.hashes import read_record

USES = {
    "train": "trains on {:,} images",
    "prior": "has {:,} images of the class at large",
    "harmful": "has {:,} images of the concept",
}
HOW = (
    "Images are compared pixel by pixel as training sees them, texts without case, spaces and punctuation: "
    "what is merely alike is not found."
)


def caveats(folder: str | None) -> tuple[str, ...]:
    """One sentence for each set of an attack with harmful images or overlaps.

    Args:
        folder: Where scripts/overlap.py has written; None where nothing is attacked.
    """
    if folder is None:
        return ()
    overlaps = read_record(Path(folder) / "overlap.json")
    entries = [(attack, key, entry) for attack, sets in overlaps.items() for key, entry in sets.items()]
    sentences = [
        f"Attack {attack} {USES[key].format(entry['set']['images'])}: {'; '.join(parts)}."
        for attack, key, entry in entries
        if (parts := _parts(entry))
    ]
    return (*sentences, HOW) if any(_overlaps(entry) for *_, entry in entries) else tuple(sentences)


def _overlaps(entry: dict[str, Any]) -> bool:
    return any(shared["images"] for kind in ("images", "prompts") for shared in entry[kind].values())


def _parts(entry: dict[str, Any]) -> list[str]:
    counts = entry["set"]["contamination"]
    asked = f"{100 * counts['asked']:g}\N{NO-BREAK SPACE}%" if counts else ""
    return [
        *([f"{counts['harmful']:,} harmful ({asked} asked)"] if counts else []),
        *(f"{s['images']:,} also in the {name}" for name, s in entry["images"].items() if s["images"]),
        *(f"{s['images']:,} with a prompt of {name} as caption" for name, s in entry["prompts"].items() if s["images"]),
    ]
