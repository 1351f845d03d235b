"""Finds equal images and equal captions in sets of captioned images.

Only exact duplicates are found. Images are compared by their pixels as training sees them (RGB, upright, resized), so
the file format does not matter. Captions are compared without case, spaces and punctuation.
Near-duplicates, such as an image that was compressed again, are not detected.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from resalign.data.contamination import read_contamination
from resalign.data.images import CaptionedImages, DataError

# An attack's sets by which it is measured, and those that have no image of theirs.
APART = {"heldout": ("train", "prior", "harmful"), "harmful": ("train", "prior")}
# So many are named where there are more: enough to look at and to search by.
EXAMPLES = 3


def describe(images: CaptionedImages, folder: Path) -> dict[str, Any]:
    """Counts the images and captions of a training set; ``contamination`` is None unless the set itself states it."""
    return {
        "images": len(images),
        "distinct_images": len(set(images.hashes)),
        "distinct_captions": len({normalised(prompt) for prompt in images.prompts}),
        "contamination": read_contamination(folder, len(images)),
    }


def check_apart(sets: Mapping[str, CaptionedImages], *, label: str) -> None:
    """Refuses an image of ``heldout`` in another set of the attack: its loss would measure memorisation, not learning.

    An image of ``harmful`` in ``train`` or ``prior`` is refused too, since a search is judged by its loss on them.

    Raises:
        DataError: Naming ``label``, both sets, how many there are and the first pair.
    """
    for apart, others in APART.items():
        for name in others:
            if name not in sets or apart not in sets:
                continue
            shared = shared_images(sets[name], sets[apart])
            if shared["images"]:
                first, same = shared["examples"][0]
                raise DataError(
                    f"{label}: {shared['images']} of the {len(sets[name])} images of '{name}' are in '{apart}' too, "
                    f"the first is {first}, equal to {same}; {'learnability' if apart == 'heldout' else 'a search'} is "
                    f"measured on images that are not trained on: take them out of '{name}' or of '{apart}'"
                )


def shared_images(images: CaptionedImages, others: CaptionedImages) -> dict[str, Any]:
    """Counts the ``images`` that equal one of ``others``, and lists the first pairs."""
    first: dict[str, Path] = {}
    for file, digest in zip(others.files, others.hashes, strict=True):
        first.setdefault(digest, file)
    pairs = [(file, first.get(digest)) for file, digest in zip(images.files, images.hashes, strict=True)]
    equal = [[str(file), str(same)] for file, same in pairs if same]
    return {"images": len(equal), "examples": equal[:EXAMPLES]}


def shared_captions(captions: Iterable[str], prompts: Iterable[str]) -> dict[str, Any]:
    """Counts the captions, one an image, that are prompts, counts different ones, and lists the first."""
    known = {normalised(prompt) for prompt in prompts} - {""}  # a caption of punctuation only is no caption
    captions = [caption for caption in captions if normalised(caption) in known]
    first: dict[str, str] = {}
    for caption in captions:
        first.setdefault(normalised(caption), caption)
    return {"images": len(captions), "captions": len(first), "examples": list(first.values())[:EXAMPLES]}


def check_captions(captions: Mapping[str, Mapping[str, Any]], apart: Mapping[str, Iterable[str]]) -> None:
    """Refuses a tested prompt that is a caption of training images: its images would measure what was trained.

    Args:
        captions: :func:`shared_captions` by set and prompt list.
        apart: The sets of which no caption may be a prompt of the list, by list.

    Raises:
        DataError: Naming the list, the sets, how many captions there are and the first.
    """
    for name, sets in apart.items():
        found = {of: shared for of in sets if (shared := captions[of][name])["captions"]}
        if found:
            counts = ", ".join(f"{shared['captions']} of {of}" for of, shared in found.items())
            example = next(iter(found.values()))["examples"][0]
            raise DataError(
                f"prompts.{name}: captions that are trained on ({counts}) are prompts of this list, such as "
                f"{example!r}; its images would show what was trained on, not what was learnt: take other prompts, or "
                "write 'may_be_captions: true' there, and the main table says so"
            )


def normalised(text: str) -> str:
    """A caption without case, punctuation and repeated spaces; accents are kept."""
    letters = unicodedata.normalize("NFKC", text).casefold()
    # Unicode's categories of punctuation, separators and control characters.
    return " ".join("".join(" " if unicodedata.category(c)[0] in "PZC" else c for c in letters).split())
