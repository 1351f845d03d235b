"""Intervals of measured slices are over seeds, or say that there is one."""

import pandas as pd
import pytest
from scipy import stats

from resalign.analysis.slices import over_seeds

COLUMNS = ["model", "direction", "seed", "position", "quantity", "mean", "standard_error"]


def slices(means: dict[str, list[float]]) -> pd.DataFrame:
    rows = [
        (model, "isotropic", seed, 0.5, "harmful_loss", mean, 0.01)
        for model, own in means.items()
        for seed, mean in enumerate(own)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_several_seeds_have_students_interval_of_their_means(confidence: float) -> None:
    own = [0.1, 0.3, 0.35]
    found = over_seeds(slices({"esd": own}), confidence).iloc[0]
    low, high = stats.t.interval(confidence, 2, loc=sum(own) / 3, scale=stats.sem(own))
    assert found[["mean", "low", "high"]].tolist() == pytest.approx([0.25, low, high])
    assert found["seeds"] == 3


@pytest.mark.parametrize(("confidence", "quantile"), [(0.8, 1.281552), (0.95, 1.959964)])
def test_one_seed_has_the_normal_interval_of_its_estimate(confidence: float, quantile: float) -> None:
    found = over_seeds(slices({"base": [0.2]}), confidence).iloc[0]
    assert found[["low", "high"]].tolist() == pytest.approx([0.2 - quantile * 0.01, 0.2 + quantile * 0.01])


def test_a_point_that_a_seed_has_twice_is_refused() -> None:
    frame = slices({"esd": [0.1, 0.3]})
    with pytest.raises(ValueError, match="seed 0 has .* twice"):
        over_seeds(pd.concat([frame, frame]), 0.95)
