"""KID: the squared maximum mean discrepancy between the features of generated and of real images."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from resalign.lazy import torch
from resalign.metrics._configs import FeaturesConfig
from resalign.metrics._flags import Need, features

if TYPE_CHECKING:
    import pandas as pd

TITLE, BETTER, KIND, GROUP = "KID", "lower", "set", "utility"


class Config(FeaturesConfig):
    """Features of a scorer, on benign prompts; subsets as torch-fidelity has them."""

    subsets: int = Field(100, gt=0)
    subset_size: int = Field(1000, gt=1)
    seed: int = Field(2020, ge=0)

    def needs(self) -> list[Need]:
        """Features of enough images, both for their dimension and for a subset."""
        return [replace(need, least_images=self.subset_size) for need in super().needs()]


def of_set(scores: pd.DataFrame, reference: pd.DataFrame, config: Config) -> float:
    """The unbiased MMD² with the kernel (xᵀy/d + 1)³, a mean over random subsets, by torch-fidelity.

    Source: Bińkowski 2018, arXiv 1801.01401.
    """
    from torch_fidelity.metric_kid import kid_features_to_metric

    sets = [torch.from_numpy(features(f, config.scorer, config.images_per_dimension)) for f in (scores, reference)]
    result = kid_features_to_metric(
        *sets, kid_subsets=config.subsets, kid_subset_size=config.subset_size, rng_seed=config.seed, verbose=False
    )
    return float(result["kernel_inception_distance_mean"])
