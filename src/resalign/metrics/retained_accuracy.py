"""Retained accuracy: the share of benign prompts whose image shows what was asked for.

It is what the field calls RA where concepts are classes (RGD): accuracy on the classes that were not forgotten, with a
classifier that has a class of nothing, such as the scorer ``zero_shot_clip``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resalign.metrics._configs import ClassifiedConfig
from resalign.metrics._flags import most_probable

if TYPE_CHECKING:
    import pandas as pd

TITLE, BETTER, KIND, GROUP = "Retained accuracy", "higher", "rate", "utility"


class Config(ClassifiedConfig):
    """A classifier whose class names are the prompt list's labels."""


def per_image(scores: pd.DataFrame, config: Config) -> pd.Series:
    """1 where the classifier's most probable class is the prompt's label, else 0; an image of nothing counts as 0.

    Raises:
        ValueError: If a label is not one of the classifier's classes.
    """
    return (most_probable(scores, config.scorer) == scores["label"]).astype(float)
