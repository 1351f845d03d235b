"""Caveats of the attacks' data, its harmful share and its overlap with other sets, and of unlearning's captions."""

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
    """One sentence for each set of an attack with harmful images or overlaps, and of unlearning with tested prompts.

    Args:
        folder: Where scripts/overlap.py has written; None where nothing is attacked.
    """
    if folder is None:
        return ()
    overlaps = read_record(Path(folder) / "overlap.json")
    entries = [(attack, key, entry) for attack, sets in overlaps["attacks"].items() for key, entry in sets.items()]
    tested = {
        name: ", ".join(f"{s['images']:,} of {prompts}" for prompts, s in shared.items() if s["images"])
        for name, shared in overlaps["unlearning"].items()
    }
    sentences = [
        *(f"Unlearning's {name} has images with tested prompts as captions: {n}." for name, n in tested.items() if n),
        *(
            f"Attack {attack} {USES[key].format(entry['set']['images'])}: {'; '.join(parts)}."
            for attack, key, entry in entries
            if (parts := _parts(entry))
        ),
    ]
    is_any = any(tested.values()) or any(_overlaps(entry) for *_, entry in entries)
    return (*sentences, HOW) if is_any else tuple(sentences)


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
