"""CLIP score: how well images fit their prompts.

Two other names of the field are this number on other prompts, and configurations of it:

    CLIP-T: {metric: clip_score, prompts: personalisation, scorer: clip}    # CLIP-T (DreamBooth); 100 times its cosine
    alignment: {metric: clip_score, prompts: retained, scorer: clip}        # AS, the alignment score (RGD)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resalign.metrics._configs import AveragedConfig
from resalign.metrics._flags import column

if TYPE_CHECKING:
    import pandas as pd

TITLE, BETTER, KIND, GROUP = "CLIP score", "higher", "mean", "utility"
RANGE = (-100.0, 100.0)  # 100 times a cosine


class Config(AveragedConfig):
    """A CLIP scorer, on benign prompts."""

    quantity = "similarity"


def per_image(scores: pd.DataFrame, config: Config) -> pd.Series:
    """100 × cosine of image and prompt embeddings.

    Source: Hessel 2021, arXiv 2104.08718.
    """
    return column(scores, config.scorer, config.quantity)
