"""The world `conjunction`: unsafe is one digit in one ink, a conjunction of what is retained.

It has from Stable Diffusion what one digit of ten lacks: the concept shares its factors with much that is to be kept,
what is retained covers half of those neighbours, and whoever fine-tunes has images of both factors, never of both at
once. The model and the scans are the demo's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial
from pathlib import Path

from resalign.config.digits import DIGITS, INKS, DigitsConfig, pair
from resalign.data.prompts import Prompt, write_prompts
from resalign.digits.attack_sets import in_parts
from resalign.digits.captions import asked, asked_implicit
from resalign.digits.datasets import write_masks, write_scans
from resalign.digits.scans import PAGES, load_splits
from resalign.digits.training import random_stream

Pair = tuple[str, str]  # ink, digit


def write_conjunction(config: DigitsConfig, output: Path) -> None:
    """Writes the world's image sets and prompt lists below ``output``, one folder each.

    forget, masks: the unsafe pair. retain: the retained pairs. pool, pages: all others, on pages. plain: all others, in
    the generator's style; bold: in thick strokes. reference: all others, held out. Only forget shows the unsafe pair. A
    scan is in one of forget and retain, pool, pages, plain and bold, and reference.
    """
    world, splits, write = config.conjunction, load_splits(config), partial(write_scans, config, "conjunction")
    unsafe, retained = _inks([world.unsafe]), _inks(world.retained)
    others = _inks((ink, digit) for digit in DIGITS for ink in INKS if (ink, digit) != world.unsafe)
    generator = splits["generator"]
    shown = generator.only(generator.show(world.digit))
    write(output / "forget", shown, unsafe)
    write_masks(output / "masks", shown)
    write(output / "retain", generator.only(generator.show(*retained)), retained)
    write(output / "pool", splits["pool"], others, PAGES)
    for part, scans in in_parts(splits["attack_pages"]).items():
        write(output / "pages" / part, scans, others, PAGES)
    for part, scans in in_parts(splits["attack_bold"]).items():
        write(output / "plain" / part, scans, others)
        write(output / "bold" / part, scans, others, bold=True)
    write(output / "reference", splits["heldout"], others)
    for name, prompts in prompt_lists(config).items():
        write_prompts(output / name / "prompts.csv", prompts)


def _inks(pairs: Iterable[Pair]) -> dict[str, list[str]]:
    """The inks of each digit."""
    inks: dict[str, list[str]] = {}
    for ink, digit in pairs:
        inks.setdefault(digit, []).append(ink)
    return inks


def prompt_lists(config: DigitsConfig) -> dict[str, list[Prompt]]:
    """The lists by folder, in rounds of one prompt a pair; rounds are explicit and implicit in turn.

    unsafe-prompts: the unsafe pair. near-prompts: pairs that share its digit or its ink and are not retained.
    covered-prompts: what is retained. far-prompts: what shares nothing with the unsafe pair and is not retained.
    """
    world = config.conjunction
    lists = {"unsafe": [world.unsafe], "near": world.near, "covered": world.retained, "far": world.far}
    return {f"{name}-prompts": _rounds(config, name, pairs) for name, pairs in lists.items()}


def _rounds(config: DigitsConfig, name: str, pairs: Collection[Pair]) -> list[Prompt]:
    rng = random_stream(config, "conjunction", f"{name} prompts")
    texts = {}
    for ink, digit in pairs:
        kinds = {"explicit": asked(digit, (ink,)), "implicit": asked_implicit(digit, (ink,))}
        drawn = [[(kind, str(text)) for text in rng.permutation(of)] for kind, of in kinds.items()]
        texts[ink, digit] = [prompt for both in zip(*drawn, strict=True) for prompt in both]
    rounds = min(len(prompts) for prompts in texts.values())
    return [
        Prompt(f"{kind}-{ink}-{digit}-{turn:02d}", text, pair(ink, digit))
        for turn in range(rounds)
        for (ink, digit), prompts in texts.items()
        for kind, text in [prompts[turn]]
    ]
