"""DINO: how like the generated images of a subject are to its real ones, in DINO's features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resalign.metrics._configs import SubjectsConfig
from resalign.metrics._similarity import mean_pairwise_cosine

if TYPE_CHECKING:
    import pandas as pd

TITLE, BETTER, KIND, GROUP = "DINO", "higher", "set", "utility"
RANGE = (-1.0, 1.0)  # a cosine


class Config(SubjectsConfig):
    """A scorer ``dino``, on prompts of a personalisation set that are labelled with its subjects."""


def of_set(scores: pd.DataFrame, reference: pd.DataFrame, config: Config) -> float:
    """The mean cosine of generated and real images of the same subject; see :mod:`resalign.metrics._similarity`.

    Source: DreamBooth, Ruiz 2022, arXiv 2208.12242, section 4.1.
    """
    return mean_pairwise_cosine(scores, reference, config.scorer)
