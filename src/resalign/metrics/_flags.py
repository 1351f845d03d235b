"""How a metric reads raw scores: one row an image, one column ``scorer.quantity`` a number."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from resalign.config.strict import Strict

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass(frozen=True)
class Need:
    """The numbers that a metric reads of one scorer.

    Attributes:
        scorer: Its label.
        quantities: Numbers that it must give.
        threshold: Above it one of them flags an image; None where nothing is flagged.
        labels: Whether every label of the metric's prompts must be one of its numbers, too.
        excluded: A label that no prompt may have; '' for none.
        images_per_dimension: Fewest images for each dimension of its features; None where features are not read.
        least_images: Fewest images, whatever the number of features.
        subjects: Whether every label must be a folder of the reference images.
    """

    scorer: str
    quantities: tuple[str, ...] = ()
    threshold: float | None = None
    labels: bool = False
    excluded: str = ""
    images_per_dimension: int | None = None
    least_images: int = 0
    subjects: bool = False


class FlagRule(Strict):
    """An image is flagged if one of the named quantities exceeds the threshold.

    Attributes:
        scorer: Label of a scorer.
        quantities: Which of its numbers; the largest counts.
        threshold: Above it an image is flagged.
    """

    scorer: str
    quantities: tuple[str, ...] = Field(min_length=1)
    threshold: float = 0.5

    @property
    def need(self) -> Need:
        """The rule as a need of a metric."""
        return Need(self.scorer, self.quantities, self.threshold)


def column(scores: pd.DataFrame, scorer: str, quantity: str) -> pd.Series:
    """One raw number of every image.

    Raises:
        KeyError: Naming the columns there are.
    """
    name = f"{scorer}.{quantity}"
    if name not in scores:
        have = sorted(c for c in scores.columns if c.startswith(f"{scorer}."))
        raise KeyError(f"no score '{name}'; scorer '{scorer}' gave {have}")
    series: pd.Series = scores[name]
    if series.isna().any():
        raise ValueError(f"score '{name}' is missing for {int(series.isna().sum())} images")
    return series


def flagged(scores: pd.DataFrame, rules: Sequence[FlagRule]) -> pd.Series:
    """Whether any rule flags each image: the OR over detectors, as IP has it."""
    import pandas as pd

    hits = [
        pd.concat([column(scores, rule.scorer, quantity) for quantity in rule.quantities], axis=1).max(axis=1)
        > rule.threshold
        for rule in rules
    ]
    return pd.concat(hits, axis=1).any(axis=1)


def most_probable(scores: pd.DataFrame, scorer: str) -> pd.Series:
    """The class to which a classifier gives each image the largest number.

    Raises:
        ValueError: If the images' labels are not all classes of the classifier.
    """
    names = {name: name.removeprefix(f"{scorer}.") for name in scores.columns if name.startswith(f"{scorer}.")}
    unknown = set(scores["label"]) - set(names.values())
    if unknown:
        raise ValueError(f"labels {sorted(unknown)} are no classes of scorer '{scorer}'")
    found: pd.Series = scores[list(names)].rename(columns=names).idxmax(axis=1)
    return found


def features(scores: pd.DataFrame, scorer: str, images_per_dimension: int) -> np.ndarray:
    """A scorer's feature vectors, (N, D) float32.

    Args:
        scores: The images' raw scores.
        scorer: Label of a scorer that keeps features.
        images_per_dimension: As a covariance of D numbers from few more than D images is a bad estimate, N must be at
            least so many times D; 10 by default, a configuration may ask for less, 0 for any.

    Raises:
        ValueError: If the scorer kept none, or there are too few images for a covariance.
    """
    names = sorted(name for name in scores.columns if re.fullmatch(re.escape(scorer) + r"\.f\d+", name))
    if not names:
        raise ValueError(f"scorer '{scorer}' kept no features; set its 'features: true'")
    if len(scores) < images_per_dimension * len(names):
        needed = images_per_dimension * len(names)
        raise ValueError(f"{len(scores)} images are too few for {len(names)} features; at least {needed} are needed")
    values: np.ndarray = scores[names].to_numpy("float32", copy=True)  # pandas would hand out a read-only view
    return values
