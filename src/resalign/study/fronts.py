"""The area under a family's front of utility before and safety after fine-tuning, one value a training seed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from resalign.analysis import statistics
from resalign.analysis.statistics import Floats
from resalign.study.table import BEFORE, Study


def dominated_area(points: Floats) -> float:
    """Area of what lies below and left of some point (utility, safety), from (0, 0) on.

    Source: the hypervolume in two dimensions, Zitzler and Thiele 1998, "Multiobjective optimization using evolutionary
    algorithms", with (0, 0) as the reference point.

    Args:
        points: (settings, 2), each value in [0, 1].
    """
    area = height = 0.0
    for utility, safety in sorted(points.tolist(), reverse=True):
        area += utility * max(0.0, safety - height)
        height = max(height, safety)
    return area


def front_areas(study: Study, family: str) -> Floats:
    """A family's dominated area at each training seed (seeds,).

    A setting's utility is the mean of the utilities before fine-tuning, its safety 1 − IP over all attack states.
    """
    config, points = study.config, []
    for model in config.fronts[family]:
        utility = np.mean([study.hits(model, [BEFORE], name).seed_means for name in config.utilities], axis=0)
        safety = 1.0 - study.hits(model, study.attacked, config.safety).seed_means
        points.append(np.stack([utility, safety], axis=-1))
    return np.array([dominated_area(of_seed) for of_seed in np.stack(points, axis=1)])


def front_table(study: Study) -> pd.DataFrame:
    """Every family's area.

    Returns:
        Columns family, models, area, low, high (Student's t over training seeds) and seeds.
    """
    rows = []
    for family, models in study.config.fronts.items():
        areas = front_areas(study, family)
        found = statistics.across_seeds(areas, len(areas), study.settings.confidence)
        row = {"family": family, "models": " ".join(models), "area": found.mean}
        rows.append({**row, "low": found.low, "high": found.high, "seeds": found.seeds})
    return pd.DataFrame(rows, columns=["family", "models", "area", "low", "high", "seeds"])
