"""Paired tests: each model against one other, on the same prompts and training seeds, corrected for their number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from resalign.analysis import statistics
from resalign.analysis.frames import (
    difference_held,
    differences_vary,
    draws,
    final_states,
    interval_method,
    pair_of,
    paired_key,
)
from resalign.analysis.statistics import Floats
from resalign.config.report import ReportConfig
from resalign.exhibits._inputs import ExhibitInputs

YES, THESE_SEEDS = "yes", "these seeds"
SIGN_FLIP, T_TEST = "sign flips over prompts", "paired t over seeds"
NONE = "none: one prompt, one seed, or no difference varies"
STATE_COLUMNS = ["metric", "attack", "dataset", "steps"]
COLUMNS = [
    *STATE_COLUMNS,
    *("model", "against", "difference", "low", "high", "p", "p_corrected", "significant"),
    *("n_prompts", "n_seeds", "test"),
]


def paired_tests(inputs: ExhibitInputs) -> pd.DataFrame:
    """Every model minus the focus, for each metric and state of the main table.

    Before fine-tuning, a model that nothing has trained is held against every training seed of the other
    (:func:`resalign.analysis.frames.pair_of`). Metrics of images are compared by prompt (:func:`against_by_prompt`),
    metrics of image sets by seed (:func:`against_by_seed`). One metric's tests, over states and models, are one family
    of Holm's correction.

    Returns:
        difference (model minus against), its paired interval, p and the corrected p; significant: ``yes`` where the
        corrected p is below 1 - confidence and the interval, which resamples training seeds too, excludes 0;
        ``these seeds`` where only the test is significant, for the models as they were trained (or one seed); then
        prompts and seeds that both models have, and the test.
    """
    measurements, settings, focus = inputs.measurements, inputs.settings, inputs.focus
    final = final_states(inputs.main)
    prompts, runs = inputs.frame("prompts"), inputs.frame("per_run")
    rows: list[dict[str, object]] = []
    for state, group in final.groupby(STATE_COLUMNS, sort=False):
        metric, attack, _, steps = map(str, state)
        is_set = measurements.metrics[metric].kind == "set"
        frame = runs if is_set else prompts
        others = [model for model in measurements.models if model != focus and model in set(group["model"])]
        for model in others if focus in set(group["model"]) else ():
            key = paired_key((model, focus), metric=metric, attack=attack, steps=int(steps))
            compare = against_by_seed if is_set else against_by_prompt
            first, second = pair_of(frame, runs, (model, focus), metric=metric, attack=attack, steps=int(steps))
            found = compare(first, second, settings, key)
            ends = float(str(found["low"])), float(str(found["high"]))
            found |= difference_held(*ends, measurements.metrics[metric])._asdict()
            rows.append({**dict(zip(STATE_COLUMNS, state, strict=True)), "model": model, "against": focus, **found})
    tests = pd.DataFrame(rows, columns=[c for c in COLUMNS if c not in ("p_corrected", "significant")])
    corrected = tests.groupby("metric", sort=False)["p"].transform(lambda p: holm(p.to_numpy(dtype=np.float64)))
    below = corrected < 1 - settings.confidence
    apart = ((tests["low"] > 0) | (tests["high"] < 0)) & (tests["n_seeds"] > 1)
    significant = np.where(below & apart, YES, np.where(below, THESE_SEEDS, "no"))
    return tests.assign(p_corrected=corrected, significant=significant)[COLUMNS]


def against_by_prompt(
    first: pd.DataFrame, second: pd.DataFrame, settings: ReportConfig, key: Sequence[str]
) -> dict[str, object]:
    """The paired difference of an image metric, clustered by prompt.

    With d_p the mean over seeds and images of first minus second at prompt p, the statistic is the mean of d_p over
    prompts, and its null distribution that under independent flips of the signs of whole prompts: all of them, or
    ``permutations`` random ones, for which p = (b + 1)/(m + 1). The interval is that of
    :func:`resalign.analysis.statistics.mean_interval`. The test takes the trained models as they are; the interval
    takes training seeds as drawn, too.
    Source: Fisher 1935, "The design of experiments", Section 21; Phipson and Smyth 2010, arXiv 1603.05766, for the
    random subset; as SciPy's ``permutation_test`` of type ``samples``. Clusters: Gail 1996, "On design considerations
    and randomization-based inference for community intervention trials".

    Args:
        first: Rows of prompts.csv of one state of one model.
        second: Those of the other model.
        settings: Of bootstrap and permutations.
        key: Equal keys draw alike.

    Raises:
        ValueError: If the two have different numbers of images of a prompt.
    """
    data = crossed_difference(first, second, key)
    if data is None:
        return _untested(float("nan"), 0, 0)
    interval = statistics.mean_interval(data, interval_method(settings), draws(settings, *key))
    seeds, prompts = data.sums.shape
    if prompts == 1:
        return {**_untested(data.mean, 1, seeds), **interval._asdict()}
    by_prompt = data.sums.sum(axis=0) / data.counts.sum(axis=0)
    test = stats.permutation_test(
        (by_prompt, np.zeros_like(by_prompt)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=settings.permutations,
        vectorized=True,
        batch=1000,
        random_state=draws(settings, "flips", *key),
    )
    return {
        "difference": data.mean,
        "low": interval.low,
        "high": interval.high,
        "p": float(test.pvalue),
        "n_prompts": prompts,
        "n_seeds": seeds,
        "test": SIGN_FLIP,
    }


def crossed_difference(first: pd.DataFrame, second: pd.DataFrame, key: Sequence[str]) -> statistics.Crossed | None:
    """The first model minus the second by training seed and prompt, of rows of prompts.csv; None without any in common.

    Raises:
        ValueError: If the two have different numbers of images of a prompt.
    """
    both = first.merge(second, on=["seed", "prompt_id"], suffixes=("", "_second"))
    if both.empty:
        return None
    unequal = both[both["n"] != both["n_second"]]
    if len(unequal):
        prompt = unequal.iloc[0]["prompt_id"]
        raise ValueError(f"{' '.join(key)}: {len(unequal)} prompts, first '{prompt}', have unequal numbers of images")
    sums = both.assign(d=both["sum"] - both["sum_second"]).pivot(index="seed", columns="prompt_id", values="d")
    counts = both.pivot(index="seed", columns="prompt_id", values="n")
    if sums.isna().to_numpy().any():
        raise ValueError(f"{' '.join(key)}: not every seed has every prompt; a run is incomplete")
    return statistics.Crossed(sums.to_numpy(dtype=np.float64), counts.to_numpy(dtype=np.float64))


def against_by_seed(
    first: pd.DataFrame, second: pd.DataFrame, settings: ReportConfig, _: Sequence[str]
) -> dict[str, object]:
    """The paired difference of a metric with one value a run: Student's t over training seeds that both have.

    Source: Student 1908; as SciPy's ``ttest_rel``. With one seed, or differences that do not vary, nothing is tested.
    """
    both = first.merge(second, on="seed", suffixes=("", "_second"))
    if both.empty:
        return _untested(float("nan"), 0, 0)
    values = both["value"].to_numpy(dtype=np.float64)
    others = both["value_second"].to_numpy(dtype=np.float64)
    differences = values - others
    if not differences_vary(values, others):
        return _untested(float(differences.mean()), 0, len(differences))
    found = statistics.across_seeds(differences, len(differences), settings.confidence)
    return {
        "difference": found.mean,
        "low": found.low,
        "high": found.high,
        "p": float(stats.ttest_rel(values, others).pvalue),
        "n_prompts": 0,
        "n_seeds": len(differences),
        "test": T_TEST,
    }


def _untested(difference: float, prompts: int, seeds: int) -> dict[str, object]:
    nothing = float("nan")
    values = {"difference": difference, "low": nothing, "high": nothing, "p": nothing}
    return {**values, "n_prompts": prompts, "n_seeds": seeds, "test": NONE}


def holm(p: Floats) -> Floats:
    """Corrected p-values of a family: max over j ≤ i of min(1, (m - j + 1) p_(j)); NaN for what was not tested.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    corrected = np.full(len(p), np.nan)
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.maximum.accumulate(np.minimum(1.0, factors * p[order]))
    return corrected


def conclusion(tests: pd.DataFrame, confidence: float) -> str:
    """How many tests are significant, in words."""
    tested, level = int(tests["p"].notna().sum()), f"{1 - confidence:.3g}"
    shown, few = (int((tests["significant"] == name).sum()) for name in (YES, THESE_SEEDS))
    what = f"{shown} of {tested} differences are" if shown else f"No difference of {tested} is"
    text = f"{what} significant at {level} after Holm's correction within each metric and over training seeds."
    return f"{text} {few} more hold for the trained seeds alone." if few else text
