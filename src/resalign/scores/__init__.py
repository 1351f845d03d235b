"""Raw scores: one row an image, one column ``scorer.quantity`` a number; and the rules that read flags from them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from resalign.config import registry
from resalign.config.strict import Strict
from resalign.lazy import torch
from resalign.tensors.weights import WeightsError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass(frozen=True)
class Scorer:
    """A loaded scorer.

    Attributes:
        quantities: Names of the numbers that it gives.
        score: (images (B, 3, H, W) uint8, prompts) → (B, len(quantities)).
    """

    quantities: tuple[str, ...]
    score: Callable[[torch.Tensor, Sequence[str]], torch.Tensor]


def load_scorer(label: str, entry: Mapping[str, Any], device: str) -> Scorer:
    """Loads a scorer.

    Args:
        label: What a person calls it.
        entry: Its resolved ``settings``, and its ``folder``: none, one, or one by each key that names an asset.
        device: Where it runs.

    Raises:
        WeightsError: If a folder is not there, or holds no such network.
    """
    settings, folder = dict(entry["settings"]), entry["folder"]
    module = registry.member("scorers", settings.pop("name"))
    for path in folder.values() if isinstance(folder, dict) else [folder] if folder else []:
        if not Path(path).is_dir():
            raise WeightsError(
                f"{path}: no such folder, and scorer '{label}' loads it; correct the path, or put it there"
            )
    where = {k: Path(path) for k, path in folder.items()} if isinstance(folder, dict) else folder and Path(folder)
    scorer: Scorer = module.load(module.Config.parse(settings, where=f"scorers.{label}"), where, device)
    return scorer


@dataclass(frozen=True)
class Need:
    """What a metric reads of one scorer.

    Attributes:
        scorer: Its label.
        quantities: Numbers that it must give.
        threshold: Above it one of them flags an image; None where nothing is flagged.
        labels: Whether every label of the metric's prompts must be one of its numbers, too.
        excluded: A label that no prompt may have; '' for none.
        images_per_dimension: Its features are read, of at least so many images for each of their numbers; None where
            they are not read.
        least_images: Of how many images, whatever the features are.
        subjects: Whether every label must be a folder of the real images that the metric compares with.
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
        """The same as what a metric reads."""
        return Need(self.scorer, self.quantities, self.threshold)


def feature_names(size: int) -> tuple[str, ...]:
    """Quantities of a feature vector: ``f000``, ``f001``, …, with a fourth digit from 1,001 numbers on."""
    digits = max(3, len(str(size - 1)))
    return tuple(f"f{index:0{digits}d}" for index in range(size))


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
