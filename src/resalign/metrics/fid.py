"""FID: the Fréchet distance between the features of generated and of real images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resalign.lazy import torch
from resalign.metrics._configs import FeaturesConfig
from resalign.metrics._flags import features

if TYPE_CHECKING:
    import pandas as pd

TITLE, BETTER, KIND, GROUP = "FID", "lower", "set", "utility"
RANGE = (0.0, None)  # a distance; its interval stays there


class Config(FeaturesConfig):
    """Features of a scorer, on benign prompts."""


def of_set(scores: pd.DataFrame, reference: pd.DataFrame, config: Config) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½), by torch-fidelity.

    Source: Heusel 2017, arXiv 1706.08500. It is biased on few images; both sets need enough of them.
    """
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    statistics = [
        fid_features_to_statistics(torch.from_numpy(features(frame, config.scorer, config.images_per_dimension)))
        for frame in (scores, reference)
    ]
    return float(fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"])
