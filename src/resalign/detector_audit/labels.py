"""Labels of the sampled images: read, checked, held against each other, and brought to one for each image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from resalign.analysis.statistics import Floats
from resalign.data.tables import read_table
from resalign.detector_audit.sample import IMAGE, PAGE, SHEET
from resalign.errors import DataError

YES, NO, UNSURE = "yes", "no", "unsure"
STAND_IN = "stand-in"  # the labeller's name where no person has labelled


def read_labels(paths: Sequence[Path], sample: pd.DataFrame) -> pd.DataFrame:
    """The labels of all labellers: one row an image of the sample, one column a labeller (the file's name).

    Values are ``yes``, ``no`` and ``unsure``; an image that a labeller has not labelled is ``unsure`` too.

    Raises:
        DataError: If there are no labels, or a file lacks its columns, names an image twice or one that is not in the
            sample, or holds another label.
    """
    if not paths:
        raise DataError(
            f"no labels yet: open {PAGE} in a browser, label the images, and put the file that it saves into "
            "results/<experiment>/detector-labels/, or name it by detector_audit: {labels: path}; "
            f"{SHEET} can be filled in by hand as well"
        )
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        raise DataError(f"label files {[str(path) for path in paths]} have equal names; name each as its labeller")
    return pd.DataFrame({path.stem: _read(path, sample) for path in paths}, index=sample["image_id"])


def _read(path: Path, sample: pd.DataFrame) -> list[str]:
    if not path.is_file():
        raise DataError(f"{path}: no such file of labels; detector_audit.labels names it")
    rows = read_table(path)
    table = pd.DataFrame(rows.rows, columns=list(rows.columns), dtype=str)
    if not {"image_id", "label"} <= set(table.columns):
        raise DataError(f"{path}: needs the columns image_id and label, has {list(table.columns)}")
    ids, known = table["image_id"], set(sample["image_id"])
    strangers = sorted(set(ids) - known)
    if strangers:
        raise DataError(
            f"{path}: {len(strangers)} of {len(ids)} images are not in the sample ({strangers[0]!r}, …); they were "
            "labelled for other images or another detector_audit.seed: label the present sample"
        )
    if ids.duplicated().any():
        raise DataError(f"{path}: image {ids[ids.duplicated()].iloc[0]!r} stands in it twice; keep one row")
    labels = table["label"].str.strip().str.lower().replace("", UNSURE)
    odd = sorted(set(labels) - {YES, NO, UNSURE})
    if odd:
        raise DataError(f"{path}: labels {odd} are none of 'yes', 'no', 'unsure' and empty")
    return list(labels.set_axis(ids).reindex(sample["image_id"]).fillna(UNSURE))


def stand_in_labels(sample: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """A further detector's verdicts as labels; ``images`` is the population with its column ``stand_in``."""
    verdicts = images.set_index(IMAGE)["stand_in"].loc[pd.MultiIndex.from_frame(sample[IMAGE])]
    return pd.DataFrame({STAND_IN: np.where(verdicts, YES, NO)}, index=sample["image_id"])


def consensus(labels: pd.DataFrame) -> pd.Series:
    """Whether each image shows the concept: what most labellers say; missing where they are tied or unsure."""
    votes = (labels == YES).sum(axis=1) - (labels == NO).sum(axis=1)
    return pd.Series(np.sign(votes), index=labels.index).map({1: True, -1: False, 0: None})


def agreement(labels: pd.DataFrame) -> list[dict[str, Any]]:
    """Chance-corrected agreement: Cohen's κ of each two labellers, and with more than two Fleiss' κ of all.

    Of the images that all of them have labelled yes or no. κ is NaN where nothing could be told by it: there is no such
    image, or all have the same label.

    Returns:
        labellers, measure, value, n.
    """
    pairs = list(itertools.combinations(labels.columns, 2))
    rows = [_row(labels[list(pair)], "Cohen's κ", _cohen) for pair in pairs]
    return rows + ([_row(labels, "Fleiss' κ", fleiss_kappa)] if len(pairs) > 1 else [])


def _row(labels: pd.DataFrame, measure: str, kappa: Any) -> dict[str, Any]:
    both = labels[labels.isin([YES, NO]).all(axis=1)]
    can = both.to_numpy().size > 0 and both.stack().nunique() > 1
    value = kappa((both == YES).to_numpy(dtype=np.float64)) if can else float("nan")
    return {"labellers": ", ".join(labels.columns), "measure": measure, "value": value, "n": len(both)}


def _cohen(shown: Floats) -> float:
    """Cohen 1960, "A coefficient of agreement for nominal scales", of (N, 2) labels."""
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score(shown[:, 0], shown[:, 1]))


def fleiss_kappa(shown: Floats) -> float:
    """κ = (P̄ − P̄_e) / (1 − P̄_e) of N images by R labellers (N, R), 1 for shown and 0 for not.

    P_i = Σ_j n_ij (n_ij − 1) / (R (R − 1)) and P̄_e = Σ_j p_j².
    Source: Fleiss 1971, "Measuring nominal scale agreement among many raters", Eq. 2 to 7.
    """
    raters = shown.shape[1]
    counts = np.stack([shown.sum(axis=1), raters - shown.sum(axis=1)], axis=1)
    agreed = (counts * (counts - 1)).sum(axis=1) / (raters * (raters - 1))
    by_chance = float(((counts.sum(axis=0) / counts.sum()) ** 2).sum())
    return float((agreed.mean() - by_chance) / (1 - by_chance))
