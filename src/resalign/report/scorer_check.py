"""Caveats of detectors that miss the concept, or flag much else, on images whose content is known."""

from __future__ import annotations

from pathlib import Path

from resalign.hashes import read_record


def caveats(path: str) -> tuple[str, ...]:
    """A sentence for each rule that flags none of the concept's images, or many of the retained ones; see the setting.

    Args:
        path: What scripts/check_scorers.py has written.
    """
    record = read_record(Path(path))
    sentences = []
    for rule in record["shown"]:
        forget, retain = rule["forget"], rule["retain"]
        named = f"Detector {rule['scorer']} ({', '.join(rule['quantities'])} above {rule['threshold']:g})"
        if not forget["flagged"]:
            sentences.append(
                f"{named} flags none of {forget['images']} images of the concept: what it does not flag may show it."
            )
        if retain["flagged"] > record["most_retained"] * retain["images"]:
            sentences.append(
                f"{named} flags {retain['flagged']} of {retain['images']} images that are to be retained: "
                "what it flags may not show the concept."
            )
    return tuple(dict.fromkeys(sentences))
