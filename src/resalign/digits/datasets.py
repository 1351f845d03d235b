"""Writes the demo world's image sets and prompt lists as ordinary folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from resalign.data.prompts import Prompt, write_prompts
from resalign.digits.captions import explicit, implicit, name_of
from resalign.digits.config import DIGITS, DigitsConfig
from resalign.digits.scans import BOLD_COLOURS, COLOURS, PAGES, Floats, Scans, embolden, load_splits, tint
from resalign.tensors.seeds import derive_seed

Colours = dict[str, tuple[float, float, float]]
BLACK: Colours = {"": (0.0, 0.0, 0.0)}


def write_datasets(config: DigitsConfig, output: Path) -> None:
    """Writes every image set and prompt list of the world below ``output``, one folder each.

    forget: the unsafe digit as the generator saw it. retain: the other digits likewise. pool: what simulated users
    fine-tune on. pages, bold: what the attackers fine-tune on, with a held-out part. No set but forget shows the
    unsafe digit; no scan is in two splits.
    """
    splits = load_splits(config)
    unsafe = DIGITS.index(config.unsafe)
    for name, scans in splits.items():
        safe = scans.only(scans.labels != unsafe)
        if name == "generator":
            _write(config, output / "forget", scans.only(scans.labels == unsafe), COLOURS, BLACK)
            _write(config, output / "retain", safe, COLOURS, BLACK)
        elif name == "pool":
            _write(config, output / "pool", safe, COLOURS, PAGES)
        elif name == "attack_pages":
            _write_parts(config, output / "pages", safe, COLOURS, PAGES)
        elif name == "attack_bold":
            _write_parts(config, output / "bold", safe, BOLD_COLOURS, BLACK, bold=True)
        elif name == "heldout":
            _write(config, output / "reference", safe, COLOURS, BLACK)
    write_prompts(output / "unsafe-prompts" / "prompts.csv", _unsafe_prompts(config, explicit_share=0.5))
    write_prompts(output / "named-unsafe-prompts" / "prompts.csv", _unsafe_prompts(config, explicit_share=1.0))
    write_prompts(output / "benign-prompts" / "prompts.csv", _benign_prompts(config))


def _write_parts(
    config: DigitsConfig, folder: Path, scans: Scans, inks: Colours, pages: Colours, *, bold: bool = False
) -> None:
    """A training set of two thirds of the scans and a held-out set of the rest."""
    third = np.arange(len(scans)) % 3 == 2
    _write(config, folder / "train", scans.only(~third), inks, pages, bold=bold)
    _write(config, folder / "heldout", scans.only(third), inks, pages, bold=bold)


def _write(
    config: DigitsConfig, folder: Path, scans: Scans, inks: Colours, pages: Colours, *, bold: bool = False
) -> None:
    """An image folder: every scan once, in an ink and on a page drawn for it."""
    import pandas as pd
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(derive_seed("digits", "dataset", "/".join(folder.parts[-2:]), config.seed))
    ink_names, page_names = rng.choice(list(inks), len(scans)), rng.choice(list(pages), len(scans))
    masks = embolden(scans.masks) if bold else scans.masks
    images = tint(masks, _rgb(inks, ink_names), _rgb(pages, page_names))
    rows = []
    for index, image in enumerate(images):
        name = f"scan-{scans.ids[index]:04d}.png"
        Image.fromarray((image.transpose(1, 2, 0) * 255).round().astype(np.uint8)).save(folder / name)
        digit = name_of(scans.labels[index])
        rows.append((name, _caption(digit, ink_names[index], page_names[index], bold, rng)))
    pd.DataFrame(rows, columns=["file_name", "prompt"]).to_csv(folder / "metadata.csv", index=False)


def _caption(digit: str, ink: str, page: str, bold: bool, rng: np.random.Generator) -> str:
    """A caption as the split's style has them; the generator's own style also has implicit ones."""
    if bold:
        return f"a bold {ink} {digit}"
    if page:
        return f"a {ink} {digit} on {page}"
    write = implicit if rng.random() < 0.4 else explicit
    return str(rng.choice(write(digit, (ink,))))


def _rgb(colours: Colours, names: np.ndarray) -> Floats:
    """Colours by name, (N, 3)."""
    return np.array([colours[name] for name in names], dtype=np.float32)


def _unsafe_prompts(config: DigitsConfig, explicit_share: float) -> list[Prompt]:
    """Prompts for the unsafe digit in a fixed random order, explicit and implicit ones mixed evenly."""
    rng = np.random.default_rng(derive_seed("digits", "unsafe prompts", str(explicit_share), config.seed))
    named, hidden = (list(rng.permutation(write(config.unsafe))) for write in (explicit, implicit))
    texts = (
        named if explicit_share == 1.0 else [t for pair in zip(named[: len(hidden)], hidden, strict=True) for t in pair]
    )
    kind = {**dict.fromkeys(named, "explicit"), **dict.fromkeys(hidden, "implicit")}
    return [Prompt(f"{kind[text]}-{index:03d}", str(text), config.unsafe) for index, text in enumerate(texts)]


def _benign_prompts(config: DigitsConfig) -> list[Prompt]:
    """Prompts for every other digit, in rounds of one prompt a digit, so that any prefix is balanced."""
    rng = np.random.default_rng(derive_seed("digits", "benign prompts", config.seed))
    others = [digit for digit in DIGITS if digit != config.unsafe]
    texts = {digit: list(rng.permutation(explicit(digit) + implicit(digit))) for digit in others}
    rounds = min(len(captions) for captions in texts.values())
    return [Prompt(f"{digit}-{turn:02d}", str(texts[digit][turn]), digit) for turn in range(rounds) for digit in others]
