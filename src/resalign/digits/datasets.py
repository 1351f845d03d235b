"""Writes the demo world's image sets and prompt lists as ordinary folders."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from resalign.config.digits import DIGITS, INKS, DigitsConfig
from resalign.data.prompts import write_prompts
from resalign.digits.attack_sets import attack_sets, in_parts
from resalign.digits.captions import explicit, implicit, name_of, retained_inks
from resalign.digits.image_set import PLAIN, tinted
from resalign.digits.prompt_lists import prompt_lists
from resalign.digits.scans import BOLD_COLOURS, PAGES, Scans, embolden, load_splits
from resalign.digits.training import random_stream

Inks = Collection[str] | Mapping[str, Collection[str]]  # the same for every digit, or by digit


def write_datasets(config: DigitsConfig, output: Path) -> None:
    """Writes every image set and prompt list of the world below ``output``, one folder each.

    forget: the unsafe digits as the generator saw them. masks: their ink, white on black. retain: the others likewise,
    each in half of the inks; utility is measured in the other half. pool: what simulated users fine-tune on. pages,
    bold: what the attackers fine-tune on, with a held-out part; more of those in
    :func:`resalign.digits.attack_sets.attack_sets`. No set but forget and harmful shows an unsafe digit; no scan is in
    two splits.
    """
    splits, write = load_splits(config), partial(write_scans, config, "dataset")
    for name, scans in splits.items():
        unsafe = scans.show(*config.unsafe_digits)
        safe = scans.only(~unsafe)
        if name == "generator":
            shown = scans.only(unsafe)
            write(output / "forget", shown, INKS)
            write_masks(output / "masks", shown)
            write(output / "retain", safe, {digit: retained_inks(digit) for digit in DIGITS})
        elif name == "pool":
            write(output / "pool", safe, INKS, PAGES)
        elif name == "attack_pages":
            for part, chosen in in_parts(safe).items():
                write(output / "pages" / part, chosen, INKS, PAGES)
        elif name == "attack_bold":
            for part, chosen in in_parts(safe).items():
                write(output / "bold" / part, chosen, tuple(BOLD_COLOURS), bold=True)
        elif name == "heldout":
            write(output / "reference", safe, INKS)
    for name, images in attack_sets(config, splits).items():
        images.write(output / name)
    for name, prompts in prompt_lists(config).items():
        write_prompts(output / name / "prompts.csv", prompts)


def write_scans(
    config: DigitsConfig,
    world: str,
    folder: Path,
    scans: Scans,
    inks: Inks,
    pages: Collection[str] = (PLAIN,),
    *,
    bold: bool = False,
) -> None:
    """An image folder: every scan once, in an ink and on a page drawn for it, with a caption.

    Args:
        config: The world's.
        world: Its name in the random stream.
        folder: To write.
        scans: N of them.
        inks: Those of every scan, or those of each digit.
        pages: Those of every scan.
        bold: Whether strokes are thick, and called so.
    """
    rng = random_stream(config, world, "/".join(folder.parts[-2:]))
    if isinstance(inks, Mapping):
        chosen = np.array([rng.choice(list(inks[name_of(label)])) for label in scans.labels])
    else:
        chosen = rng.choice(list(inks), len(scans))
    page_names = rng.choice(list(pages), len(scans))
    drawn = zip(scans.labels, chosen, page_names, strict=True)
    captions = [_caption(name_of(label), ink, page, bold, rng) for label, ink, page in drawn]
    shown = replace(scans, masks=embolden(scans.masks)) if bold else scans
    tinted(shown, chosen, page_names, captions).write(folder)


def write_masks(folder: Path, scans: Scans) -> None:
    """The ink of every scan, white on black, in files named as those of the images."""
    white, page = np.full(len(scans), "white"), np.full(len(scans), PLAIN)
    tinted(scans, white, page, [f"ink of {name}" for name in scans.ids]).write(folder)


def _caption(digit: str, ink: str, page: str, bold: bool, rng: np.random.Generator) -> str:
    """A caption as the split's style has them; the generator's own style also has implicit ones."""
    if bold:
        return f"a bold {ink} {digit}"
    if page:
        return f"a {ink} {digit} on {page}"
    write = implicit if rng.random() < 0.4 else explicit
    return str(rng.choice(write(digit, (ink,))))
