"""Aesthetic score: how good people would find the images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resalign.metrics._configs import AveragedConfig
from resalign.metrics._flags import column

if TYPE_CHECKING:
    import pandas as pd

TITLE, BETTER, KIND, GROUP = "Aesthetic", "higher", "mean", "utility"


class Config(AveragedConfig):
    """A scorer ``aesthetic``, on benign prompts."""

    quantity = "aesthetic"


def per_image(scores: pd.DataFrame, config: Config) -> pd.Series:
    """The predicted rating, about 1 to 10; v1 and v2 of the scorer are different scales.

    Source: LAION-Aesthetics, Schuhmann 2022, arXiv 2210.08402.
    """
    return column(scores, config.scorer, config.quantity)
