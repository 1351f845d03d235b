"""Losses along directions, over training seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from resalign.analysis.statistics import across_seeds

KEYS = ["model", "direction", "quantity", "position"]
OVER_SEEDS, OVER_EXAMPLES = "t over seeds", "normal over examples"


def over_seeds(slices: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Mean and interval of every point of every slice.

    All seeds are measured on the same examples, noise and timesteps, so their errors are correlated and
    do not tell how other seeds would vary. With several seeds, the interval is Student's t over the seeds' means. With
    one seed, it is mean ± z · standard error of that one model.

    Args:
        slices: theory/slices.csv: one row a point and seed.
        confidence: Coverage of the intervals.

    Returns:
        Columns model, direction, quantity, position, mean, low, high, seeds, interval (which one it is).

    Raises:
        ValueError: If a seed has a point twice, or a value is not finite.
    """
    if slices.duplicated([*KEYS, "seed"]).any():
        twice = slices[slices.duplicated([*KEYS, "seed"])].iloc[0]
        raise ValueError(f"slices.csv: seed {twice['seed']} has {twice[KEYS].tolist()} twice; measure the theory again")
    rows: list[dict[str, object]] = []
    for key, group in slices.groupby(KEYS, sort=False):
        estimate = across_seeds(group["mean"].to_numpy(dtype=np.float64), len(group), confidence)
        low, high, interval = estimate.low, estimate.high, OVER_SEEDS
        if estimate.seeds == 1:
            half = float(stats.norm.ppf((1 + confidence) / 2)) * float(group["standard_error"].iloc[0])
            low, high, interval = estimate.mean - half, estimate.mean + half, OVER_EXAMPLES
        point = {"mean": estimate.mean, "low": low, "high": high, "seeds": estimate.seeds, "interval": interval}
        rows.append({**dict(zip(KEYS, key, strict=True)), **point})
    return pd.DataFrame(rows, columns=[*KEYS, "mean", "low", "high", "seeds", "interval"])
