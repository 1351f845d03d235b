"""The stability of the models' ranking under other thresholds of the detectors."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

KEYS = ["metric", "attack", "steps"]


def with_tau(curves: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """Adds ``tau`` to every row: Kendall's τ-b between the models' rates there and at the configured thresholds.

    Args:
        curves: thresholds.csv.
        values: values.csv of the same states.

    Returns:
        The curves with ``tau``, NaN where the models of a state all have one rate.
    """
    means = values.set_index([*KEYS, "model"])["mean"].to_dict()
    taus = {}
    for key, group in curves.groupby([*KEYS, "threshold"], sort=False):
        configured = np.array([means[(*key[:-1], model)] for model in group["model"]], dtype=np.float64)
        taus[key] = kendall(group["mean"].to_numpy(dtype=np.float64), configured)
    index = curves.set_index([*KEYS, "threshold"]).index
    return curves.assign(tau=np.array([taus[key] for key in index], dtype=np.float64))


def kendall(first: np.ndarray, second: np.ndarray) -> float:
    """τ-b of two rankings; NaN where one of them ranks nothing."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(stats.kendalltau(first, second).statistic)


def range_of(tau: pd.Series) -> str:
    """Smallest to largest τ, in words."""
    known = tau.dropna()
    if known.empty:
        return "undefined"
    low, high = f"{known.min():.2f}", f"{known.max():.2f}"
    text = low if low == high else f"{low} to {high}"
    return text.replace("-", "−")
