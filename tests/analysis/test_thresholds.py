"""Rates over thresholds are counted from raw scores."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from resalign.analysis.collect import ScoredRun, load_metric
from resalign.analysis.stability import kendall, range_of, with_tau
from resalign.analysis.thresholds import at_threshold, threshold_curves
from resalign.config.report import ReportConfig

SETTINGS = ReportConfig(replicates=100, swept_thresholds=(0.2, 0.5, 0.8))
RULES = [
    {"scorer": "a", "quantities": ["x", "y"], "threshold": 0.4},
    {"scorer": "b", "quantities": ["x"], "threshold": 0.6},
]


@pytest.fixture
def scored(tmp_path: Path) -> tuple[list[ScoredRun], pd.DataFrame]:
    """Raw scores of one model with two training seeds."""
    rng = np.random.default_rng(0)
    rows, parts = [], []
    for seed in (0, 1):
        scores = pd.DataFrame(rng.random((12, 3)), columns=["a.x", "a.y", "b.x"])
        names = {"prompt_id": [f"p{n // 2}" for n in range(12)], "image_index": [n % 2 for n in range(12)]}
        scores = scores.assign(**names, steps=0, prompt_set="unsafe")
        folder = tmp_path / f"seed-{seed}"
        folder.mkdir()
        scores.to_parquet(folder / "scores.parquet")
        rows.append(ScoredRun("esd", "none", "", seed, {"score": str(tmp_path / "seed-{seed}")}))
        parts.append(scores)
    return rows, pd.concat(parts)


def test_every_rule_gets_the_threshold(scored: tuple[list[ScoredRun], pd.DataFrame]) -> None:
    rows, scores = scored
    metrics = {"ip": load_metric("ip", {"name": "ip", "prompts": "unsafe", "rules": RULES})}
    curves = threshold_curves(rows, metrics, SETTINGS)
    assert curves["threshold"].tolist() == [0.2, 0.5, 0.8]
    largest = scores[["a.x", "a.y", "b.x"]].max(axis=1)
    assert curves["mean"].tolist() == pytest.approx([(largest > t).mean() for t in (0.2, 0.5, 0.8)])
    assert curves["n"].tolist() == [24, 24, 24]
    assert (curves["low"] <= curves["mean"]).all()
    assert (curves["mean"] <= curves["high"]).all()


def test_of_a_run_no_more_is_kept_than_the_rules_read(scored: tuple[list[ScoredRun], pd.DataFrame]) -> None:
    module, config, info = load_metric("ip", {"name": "ip", "prompts": "unsafe", "rules": RULES})
    read = []

    def per_image(scores: pd.DataFrame, config: object) -> pd.Series:
        read.append(set(scores))
        return module.per_image(scores, config)

    threshold_curves(scored[0], {"ip": (SimpleNamespace(per_image=per_image), config, info)}, SETTINGS)
    assert read == [{"prompt_id", "a.x", "a.y", "b.x"}] * 6


def test_a_metric_of_one_rule_and_one_of_none() -> None:
    _, us, _ = load_metric("us", {"name": "us", "prompts": "unsafe", "rule": RULES[1]})
    assert at_threshold(us, 0.9).rule.threshold == 0.9
    assert us.rule.threshold == 0.6
    _, other, _ = load_metric("learnability", {"name": "learnability"})
    assert at_threshold(other, 0.9) is None


def test_tau_is_one_where_the_order_stays_and_minus_one_where_it_is_reversed() -> None:
    state = {"attack": "pages", "steps": 200, "metric": "ip"}
    values = pd.DataFrame([{**state, "model": m, "mean": v} for m, v in (("a", 0.1), ("b", 0.2), ("c", 0.4))])
    curves = pd.concat(
        [values.assign(threshold=0.2, mean=[0.2, 0.5, 0.9]), values.assign(threshold=0.8, mean=[0.3, 0.2, 0.1])]
    )
    found = with_tau(curves, values.iloc[::-1])
    assert found.groupby("threshold")["tau"].first().tolist() == [1.0, -1.0]
    assert range_of(found["tau"]) == "−1.00 to 1.00"
    assert np.isnan(kendall(np.array([0.0, 0.0]), np.array([0.1, 0.2])))
