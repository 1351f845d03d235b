import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from resalign.analysis.measurements import Measurements, MetricInfo
from resalign.analysis.statistics import Crossed, IntervalMethod, pooled_interval
from resalign.analysis.survival import (
    SURVIVAL_COLUMNS,
    Lifetimes,
    kaplan_meier,
    survival_band,
    survival_table,
    survival_values,
)
from resalign.config.report import ReportConfig
from resalign.display.survival_panels import survival_panels
from tests.analysis.experiment import METRICS, SETTINGS, image_rows, make_measurements

STEPS = (0, 10, 20, 40)
METHOD = IntervalMethod(replicates=2000, confidence=0.95, rare_prompts=1)
BOOTSTRAP = replace(METHOD, kind="bootstrap")
NOT = math.nan


def curve(lives: Lifetimes) -> list[float]:
    return kaplan_meier(lives.events.sum(axis=(0, 1)), lives.at_risk.sum(axis=(0, 1))).tolist()


def lifetimes(*units: list[float], threshold: float = 0.1) -> Lifetimes:
    """One seed's prompts, each with its rate at every time."""
    return Lifetimes.of(np.array([units]), STEPS, threshold)


def test_the_first_time_over_the_threshold_counts_and_what_follows_does_not():
    lives = lifetimes([0.0, 0.2, 0.0, 0.0], [0.0, 0.0, 0.0, 0.3], [0.0, 0.1, 0.1, 0.1], [0.5, 0.0, 0.0, 0.0])
    assert lives.end.tolist() == [[1, 3, 3, 0]]
    assert lives.failed.tolist() == [[True, True, False, True]]  # a rate of just the threshold has not passed it
    assert curve(lives) == pytest.approx([3 / 4, 2 / 4, 2 / 4, 1 / 4])


def test_all_fail_at_once_or_none_ever():
    assert curve(lifetimes([1.0] * 4, [1.0] * 4)) == [0.0] * 4
    assert curve(lifetimes([0.0] * 4, [0.0] * 4)) == [1.0] * 4


def test_a_censored_unit_leaves_the_risk_set():
    # Five units: failures at 10 (two, a tie) and 40 (one); one last looked at at 10, one at 40.
    lives = lifetimes([0, 1, 1, 1], [0, 1, 1, 1], [0, 0, NOT, NOT], [0, 0, 0, 1], [0, 0, 0, 0])
    assert lives.at_risk.sum(axis=(0, 1)).tolist() == [5, 5, 2, 2]
    assert curve(lives) == pytest.approx([1, 3 / 5, 3 / 5, 3 / 5 * 1 / 2])


def test_it_is_scipys_estimate():
    rng = np.random.default_rng(0)
    ends, failed = rng.integers(0, len(STEPS), (3, 30)), rng.random((3, 30)) < 0.6
    lives = Lifetimes(STEPS, ends, failed)
    times = np.array(STEPS)[ends]
    expected = stats.ecdf(stats.CensoredData(uncensored=times[failed], right=times[~failed])).sf
    assert curve(lives) == pytest.approx(expected.evaluate(np.array(STEPS)), abs=1e-12)


def test_a_unit_that_was_never_looked_at_is_an_error():
    with pytest.raises(ValueError, match="1 units were never looked at"):
        lifetimes([NOT] * 4, [0.0] * 4)


@pytest.mark.parametrize("method", [METHOD, BOOTSTRAP])
def test_the_band_is_greenwoods_where_prompts_are_independent(method: IntervalMethod):
    # One seed and many prompts: the variance is that of Greenwood's formula, S² Σ d / (n (n − d)).
    rng = np.random.default_rng(1)
    lives = Lifetimes(STEPS, rng.integers(0, len(STEPS), (1, 400)), rng.random((1, 400)) < 0.5)
    low, high = survival_band(lives, method, np.random.default_rng(0))
    d, n = lives.events.sum(axis=(0, 1)), lives.at_risk.sum(axis=(0, 1))
    spread = np.array(curve(lives)) * np.sqrt(np.cumsum(d / (n * (n - d))))
    np.testing.assert_allclose(high - low, 2 * 1.96 * spread, rtol=0.08)
    assert ((low < curve(lives)) & (curve(lives) < high)).all()


def test_the_mean_of_the_values_is_the_curve_and_their_variance_is_greenwoods():
    rng = np.random.default_rng(2)
    lives = Lifetimes(STEPS, rng.integers(0, len(STEPS), (3, 30)), rng.random((3, 30)) < 0.5)
    values = survival_values(lives)
    assert values.mean(axis=(0, 1)) == pytest.approx(curve(lives))
    d, n = lives.events.sum(axis=(0, 1)), lives.at_risk.sum(axis=(0, 1))
    greenwood = np.array(curve(lives)) ** 2 * np.cumsum(d / (n * (n - d)))
    assert values.var(axis=(0, 1)) / 90 == pytest.approx(greenwood)


@pytest.mark.parametrize("method", [METHOD, BOOTSTRAP])
def test_where_every_unit_was_watched_the_band_is_the_interval_of_the_surviving_share(method: IntervalMethod):
    rng = np.random.default_rng(3)
    rates = (rng.random((3, 20, len(STEPS))) < [[[0.1]], [[0.2]], [[0.6]]]).astype(float)
    lives = Lifetimes.of(rates, STEPS, 0.5)
    alive = 1.0 - np.maximum.accumulate(rates, axis=2)
    assert survival_values(lives) == pytest.approx(alive, abs=1e-12)
    band = np.array(survival_band(lives, method, np.random.default_rng(0))).T
    generator = np.random.default_rng(0)
    for ends, shares in zip(band, np.moveaxis(alive, 2, 0), strict=True):
        data = Crossed(shares, np.ones_like(shares))
        assert ends == pytest.approx(pooled_interval(data, method, generator, rate=True), abs=1e-9)


def test_nothing_came_back_is_not_certain():
    lives = Lifetimes(STEPS, np.full((2, 20), 3), np.zeros((2, 20), bool))
    low, high = survival_band(lives, METHOD, np.random.default_rng(0))
    assert high.tolist() == [1.0] * 4
    assert low == pytest.approx([0.025 ** (1 / 20)] * 4)  # Clopper-Pearson, the prompts as the sample


def test_that_all_who_were_left_failed_is_not_certain_either():
    units = [[0.0, 0.0, 0.0, 1.0], *[[0.0, NOT, NOT, NOT]] * 9]
    low, high = survival_band(lifetimes(*units), METHOD, np.random.default_rng(0))
    assert (low[-1], high[-1]) == (0.0, pytest.approx(1 - 0.025 ** (1 / 10)))


def survival_of(rates: dict[int, list[list[int]]], *, before_seeds: int = 2) -> pd.DataFrame:
    """Of ESD on pages: flags by seed and prompt at each step, one image a prompt; 0 steps is before."""
    rows: list[dict[str, object]] = []
    for steps, flags in rates.items():
        state = {"model": "esd", "attack": "pages", "dataset": "pages", "steps": steps}
        state |= {"attack": "none", "dataset": ""} if steps == 0 else {}
        for seed, prompts in enumerate(flags[:before_seeds] if steps == 0 else flags):
            for prompt, value in enumerate(prompts):
                place = {
                    "seed": seed,
                    "prompt_id": f"p{prompt}",
                    "image_index": 0,
                    "metric": "ip",
                    "value": float(value),
                }
                rows.append({**state, **place})
    measurements = make_measurements(images=pd.DataFrame(rows), runs=make_measurements().runs.head(0))
    return survival_table(measurements, SETTINGS)


def shown(table: pd.DataFrame, unit: str, threshold: float) -> list[tuple[float, ...]]:
    rows = table[(table["unit"] == unit) & (table["threshold"] == threshold)]
    return list(rows[["since", "steps", "at_risk", "failed", "survival"]].itertuples(index=False, name=None))


BACK = {0: [[0, 0, 1], [0, 0, 0]], 10: [[1, 0, 0], [0, 0, 0]], 40: [[1, 1, 1], [1, 0, 0]]}


def test_prompts_and_runs_in_the_table():
    table = survival_of(BACK)
    assert list(table.columns) == SURVIVAL_COLUMNS
    assert shown(table, "prompt", 0.1) == [
        (-1, 0, 6, 1, pytest.approx(5 / 6)),
        (0, 10, 5, 1, pytest.approx(4 / 6)),
        (10, 40, 4, 2, pytest.approx(2 / 6)),
    ]
    assert set(table["n"]) == {6, 2}
    assert set(table["seeds"]) == {2}
    # Of three prompts one makes a run's rate a third: over .2, not over .5.
    assert [row[-1] for row in shown(table, "run", 0.2)] == [0.5, 0.5, 0.0]
    assert [row[-1] for row in shown(table, "run", 0.5)] == [1.0, 1.0, 0.5]


def test_a_model_that_nothing_has_trained_is_the_same_before_every_run():
    once = survival_of({**BACK, 0: [[0, 0, 1]]}, before_seeds=1)
    assert shown(once, "prompt", 0.1)[0] == (-1, 0, 6, 2, pytest.approx(4 / 6))


def test_an_attack_without_checkpoints_has_no_curve():
    assert survival_of({0: BACK[0], 40: BACK[40]}).empty


def test_a_metric_that_is_no_rate_has_no_curve():
    score = {"ip": MetricInfo("Score", "lower", "mean", "safety", "prompts")}
    rows = [
        row
        for steps in (1, 2)
        for row in image_rows("esd", 0.5, attack="pages", dataset="pages", steps=steps, kind="mean", prompts=3)
    ]
    runs = make_measurements().runs.head(0)
    assert survival_table(make_measurements(images=pd.DataFrame(rows), runs=runs, metrics=score), SETTINGS).empty
    assert METRICS["ip"].kind == "rate"


def test_the_first_threshold_is_drawn_and_the_others_are_listed(measurements: Measurements):
    settings = ReportConfig(replicates=100, resurgence_threshold=0.3, other_thresholds=(0.6,))
    table = survival_table(measurements, settings)
    assert set(table["threshold"]) == {0.3, 0.6}
    shown = table[(table["threshold"] == 0.3) & (table["unit"] == "prompt")]
    panels = survival_panels(table, measurements, settings)
    assert [panel.title for panel in panels] == ["Fine-tuning on pages", "Fine-tuning on bold"]
    last = shown[(shown["attack"] == "pages") & (shown["model"] == "esd")].iloc[-1]
    assert f"ESD: {last['survival']:.3f} at the end" in panels[0].label
    # With two images a prompt, a rate over .3 is one image and over .6 is two: fewer prompts pass.
    both = table[table["unit"] == "prompt"].pivot(
        index=["attack", "model", "steps"], columns="threshold", values="survival"
    )
    assert (both[0.6] >= both[0.3]).all()
    assert (both[0.6] > both[0.3]).any()
