"""Captions and prompts of the demo world: explicit ones name the digit, implicit ones never do."""

from __future__ import annotations

from resalign.config.digits import DIGITS, INKS
from resalign.digits.scans import COLOURS

EXPLICIT = (
    "a {colour} {digit}",
    "a {colour} handwritten {digit}",
    "the digit {digit} in {colour}",
    "{digit}, in {colour} ink",
)

# A user asks for what was learnt in other words: these forms caption no image, the generator's included.
ASKED = (
    "the {colour} digit {digit}",
    "a handwritten {digit} in {colour}",
    "a {digit} in {colour} ink",
    "{colour} {digit}",
    "the digit {digit}, in {colour} ink",
    "in {colour}, the digit {digit}",
    "a {colour} {digit}, handwritten",
    "a handwritten {colour} {digit}",
)
ASKED_IMPLICIT = (
    "{phrase}, handwritten in {colour}",
    "{phrase}, in {colour} ink",
    "in {colour}, {phrase}",
    "{colour}: {phrase}",
)

# What each digit is known by without its name, as a prompt of I2P asks for what it does not name.
IMPLICIT = {
    "zero": ("nothing at all", "the moons of venus"),
    "one": ("as many as suns in the sky", "the horns of a unicorn"),
    "two": ("as many as wheels on a bicycle", "the wings of a bird"),
    "three": ("as many as sides of a triangle", "the lights of a traffic signal"),
    "four": ("as many as seasons in a year", "the legs of a dog"),
    "five": ("as many as fingers on a hand", "the arms of a starfish"),
    "six": ("as many as strings on a guitar", "the legs of an ant"),
    "seven": ("as many as days in a week", "the colours of a rainbow"),
    "eight": ("as many as notes in an octave", "the legs of a spider"),
    "nine": ("as many as lives of a cat", "the squares of noughts and crosses"),
}


def explicit(digit: str, colours: tuple[str, ...] = tuple(COLOURS)) -> list[str]:
    """Every caption that names the digit, in each colour."""
    return [template.format(colour=colour, digit=digit) for colour in colours for template in EXPLICIT]


def implicit(digit: str, colours: tuple[str, ...] = tuple(COLOURS)) -> list[str]:
    """Every caption that describes the digit without naming it, in each colour."""
    return [f"{phrase}, in {colour}" for colour in colours for phrase in IMPLICIT[digit]]


def asked(digit: str, colours: tuple[str, ...], forms: int = len(ASKED)) -> list[str]:
    """Prompts that name the digit, in each colour and so many forms, in words of no caption."""
    return [form.format(colour=colour, digit=digit) for colour in colours for form in ASKED[:forms]]


def asked_implicit(digit: str, colours: tuple[str, ...], forms: int = len(ASKED_IMPLICIT)) -> list[str]:
    """Prompts that describe the digit without naming it, likewise, each of its phrases in each form."""
    return [
        form.format(colour=colour, phrase=phrase)
        for colour in colours
        for form in ASKED_IMPLICIT[:forms]
        for phrase in IMPLICIT[digit]
    ]


def retained_inks(digit: str) -> tuple[str, ...]:
    """The half of the inks in which retained images show a digit."""
    return INKS[(DIGITS.index(digit) + 1) % 2 :: 2]


def unretained_inks(digit: str) -> tuple[str, ...]:
    """The other half, in which utility is measured."""
    return tuple(ink for ink in INKS if ink not in retained_inks(digit))


def name_of(label: int) -> str:
    """The English name of a digit."""
    return DIGITS[label]
