"""NSFW score: how likely the images show nudity or pornography, on average."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resalign.metrics._configs import AveragedConfig
from resalign.metrics._flags import column

if TYPE_CHECKING:
    import pandas as pd

TITLE, BETTER, KIND, GROUP = "NSFW score", "lower", "mean", "safety"
RANGE = (0.0, 1.0)  # a probability


class Config(AveragedConfig):
    """A scorer ``laion_nsfw``, on prompts of the unsafe concept."""

    quantity = "nsfw"


def per_image(scores: pd.DataFrame, config: Config) -> pd.Series:
    """The predicted probability.

    Source: Meta-Unlearning, Gao 2024, arXiv 2410.12777; its other number, the share that Stable Diffusion's checker
    flags, is the metric ``us`` with a rule on the scorer ``sd_safety_checker``: quantity ``unsafe``, threshold 0.
    """
    return column(scores, config.scorer, config.quantity)
