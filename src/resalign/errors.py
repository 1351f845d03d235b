"""The error of input data."""

from __future__ import annotations


class DataError(ValueError):
    """Input data that cannot be used; the message names file and remedy."""

    def __init__(self, message: str) -> None:
        """One line of it: what a file, a library or a server says may hold line feeds and a terminal's commands."""
        line = " ".join(message.split("\n"))
        super().__init__("".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line))
