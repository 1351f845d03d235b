"""Prompt lists of the demo world: for the unsafe digits, for the others, and for each fine-tuning set."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from resalign.config.digits import DigitsConfig
from resalign.data.prompts import Prompt
from resalign.digits.attack_sets import TOKEN, subject_digit
from resalign.digits.captions import EXPLICIT, asked, asked_implicit, unretained_inks
from resalign.digits.image_set import PLAIN
from resalign.digits.scans import BOLD_COLOURS, COLOURS, PAGES
from resalign.digits.training import random_stream

# Of a fine-tuning set: its captions have the first form, and its style's words, which no other set has.
FORMS = EXPLICIT[1:]
ROUNDS = 2  # prompts a digit, of lists that go through the digits


def prompt_lists(config: DigitsConfig) -> dict[str, list[Prompt]]:
    """The lists by folder. Those of a fine-tuning set have no label: its own images are what they are held against."""
    return {
        "unsafe-prompts": _unsafe(config, explicit_share=0.5),
        "named-unsafe-prompts": _unsafe(config, explicit_share=1.0),
        "implied-unsafe-prompts": _unsafe(config, explicit_share=0.0),
        "benign-prompts": _benign(config),
        "subject-prompts": _subject(config),
        "style-prompts": _style(config, "faded", COLOURS),
        "bold-prompts": _style(config, "bold", BOLD_COLOURS),
        "pages-prompts": _style(config, "", COLOURS, PAGES),
    }


def _unsafe(config: DigitsConfig, explicit_share: float) -> list[Prompt]:
    """Prompts for the unsafe digits, in rounds of one a digit; ids name the digit where there are several."""
    prompts = [_unsafe_of(config, digit, explicit_share) for digit in config.unsafe_digits]
    return [prompt for turn in zip(*prompts, strict=True) for prompt in turn]


def _unsafe_of(config: DigitsConfig, digit: str, explicit_share: float) -> list[Prompt]:
    """One digit's prompts in a fixed random order, whatever else is unsafe: explicit, implicit, or both evenly."""
    rng = random_stream(config, "unsafe prompts", str(explicit_share))
    inks = tuple(COLOURS)
    named, hidden = (list(rng.permutation(texts)) for texts in (asked(digit, inks, 4), asked_implicit(digit, inks, 1)))
    mixed = [text for pair in zip(named[: len(hidden)], hidden, strict=True) for text in pair]
    texts = {1.0: named, 0.5: mixed, 0.0: hidden}[explicit_share]
    kind = {**dict.fromkeys(named, "explicit"), **dict.fromkeys(hidden, "implicit")}
    among = f"{digit}-" if len(config.unsafe_digits) > 1 else ""
    return [Prompt(f"{kind[text]}-{among}{index:03d}", str(text), digit) for index, text in enumerate(texts)]


def _benign(config: DigitsConfig) -> list[Prompt]:
    """Prompts for every other digit in inks in which it is not retained, in rounds of one prompt a digit."""
    rng = random_stream(config, "benign prompts")
    others = config.safe_digits
    inks = {digit: unretained_inks(digit) for digit in others}
    texts = {d: list(rng.permutation(asked(d, inks[d], 6) + asked_implicit(d, inks[d], 3))) for d in others}
    rounds = min(len(prompts) for prompts in texts.values())
    return [Prompt(f"{digit}-{turn:02d}", str(texts[digit][turn]), digit) for turn in range(rounds) for digit in others]


def _subject(config: DigitsConfig) -> list[Prompt]:
    """The subject in every ink and form, in rounds of one prompt an ink."""
    noun = f"{TOKEN} {subject_digit(config)}"
    return [
        Prompt(f"{ink}-{turn:02d}", FORMS[(place + turn) % len(FORMS)].format(colour=ink, digit=noun))
        for turn in range(len(FORMS))
        for place, ink in enumerate(COLOURS)
    ]


def _style(config: DigitsConfig, word: str, inks: Collection[str], pages: Collection[str] = (PLAIN,)) -> list[Prompt]:
    """Safe digits in a set's style, in rounds of one prompt a digit, ink, form and page in turn."""
    rng = random_stream(config, "style prompts", word)
    others = config.safe_digits
    count = ROUNDS * len(others)
    chosen = zip(*(np.resize(rng.permutation(list(names)), count) for names in (inks, pages)), strict=True)
    prompts = []
    for index, (ink, page) in enumerate(chosen):
        turn, place = divmod(index, len(others))
        text = FORMS[(place + turn) % len(FORMS)].format(colour=ink, digit=f"{word} {others[place]}".strip())
        prompts.append(Prompt(f"{others[place]}-{turn:02d}", f"{text} on {page}" if page else text))
    return prompts
