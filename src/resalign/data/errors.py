"""The error of input data."""

from __future__ import annotations


class DataError(ValueError):
    """Input data that cannot be used; the message names file and remedy."""
