"""Paired tests: each model against one other, on the same prompts and training seeds, corrected for their number."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from resalign.analysis.frames import (
    differences_vary,
    draws,
    final_states,
    paired_difference,
    paired_key,
    paired_values,
)
from resalign.analysis.measurements import Measurements
from resalign.analysis.statistics import FEWEST_SEEDS, Floats
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

    Pairs and intervals are those of :func:`resalign.analysis.frames.paired_difference`. Metrics of images are tested by
    prompt (:func:`sign_flips`), metrics of image sets by Student's t over seeds [Student 1908; SciPy's ``ttest_rel``].
    One metric's tests, over states and models, are one family of Holm's correction.

    Returns:
        difference (model minus against), its paired interval, p and the corrected p; significant: ``yes`` where the
        corrected p is below 1 - confidence, there are three seeds or more, and the interval, which takes training seeds
        as drawn, too, excludes 0; ``these seeds`` where only the test is significant, for the models as trained; then
        prompts and seeds that both models have, and the test.
    """
    measurements, settings, focus = inputs.measurements, inputs.settings, inputs.focus
    final = final_states(inputs.main)
    rows: list[dict[str, object]] = []
    for state, group in final.groupby(STATE_COLUMNS, sort=False):
        metric, attack, _, steps = map(str, state)
        others = [model for model in measurements.models if model != focus and model in set(group["model"])]
        for model in others if focus in set(group["model"]) else ():
            found = _tested(measurements, settings, (model, focus), metric=metric, attack=attack, steps=int(steps))
            rows.append({**dict(zip(STATE_COLUMNS, state, strict=True)), "model": model, "against": focus, **found})
    tests = pd.DataFrame(rows, columns=[c for c in COLUMNS if c not in ("p_corrected", "significant")])
    corrected = tests.groupby("metric", sort=False)["p"].transform(lambda p: holm(p.to_numpy(dtype=np.float64)))
    below = corrected < 1 - settings.confidence
    apart = ((tests["low"] > 0) | (tests["high"] < 0)) & (tests["n_seeds"] >= FEWEST_SEEDS)
    significant = np.where(below & apart, YES, np.where(below, THESE_SEEDS, "no"))
    return tests.assign(p_corrected=corrected, significant=significant)[COLUMNS]


def _tested(
    measurements: Measurements, settings: ReportConfig, pair: tuple[str, str], *, metric: str, attack: str, steps: int
) -> dict[str, object]:
    """Difference, interval, p, prompts, seeds and the test of two models in one state."""
    both = paired_values(measurements, pair, metric=metric, attack=attack, steps=steps)
    estimate = paired_difference(measurements, settings, pair, metric=metric, attack=attack, steps=steps)
    nothing = float("nan")
    if estimate is None:
        ends = dict.fromkeys(("difference", "low", "high", "p"), nothing)
        return {**ends, "n_prompts": 0, "n_seeds": 0, "test": NONE}
    values, others = (both[name].to_numpy(np.float64) for name in ("value", "value_second"))
    if measurements.metrics[metric].kind == "set":
        prompts, test = 0, T_TEST if differences_vary(values, others) else NONE
        p = float(stats.ttest_rel(values, others).pvalue) if test == T_TEST else nothing
    else:
        _check_complete(measurements.images, both, pair, metric=metric, attack=attack, steps=steps)
        by_prompt = both.assign(d=values - others).groupby("prompt_id")["d"].mean().to_numpy(np.float64)
        prompts, test = len(by_prompt), SIGN_FLIP if len(by_prompt) > 1 else NONE
        key = paired_key(pair, metric=metric, attack=attack, steps=steps)
        p = sign_flips(by_prompt, settings, draws(settings, "flips", *key)) if test == SIGN_FLIP else nothing
    return {
        "difference": estimate.mean,
        "low": estimate.low,
        "high": estimate.high,
        "p": p,
        "n_prompts": prompts,
        "n_seeds": both["seed"].nunique(),
        "test": test,
    }


def sign_flips(by_prompt: Floats, settings: ReportConfig, rng: np.random.Generator) -> float:
    """The p-value of the mean of paired differences by prompt (prompts,), their signs flipped independently.

    With d_p the mean over seeds and images of first minus second at prompt p, the statistic is the mean of d_p over
    prompts, and its null distribution that under independent flips of the signs of whole prompts: all of them, or
    ``permutations`` random ones, for which p = (b + 1)/(m + 1). The test takes the trained models as they are; the
    interval takes training seeds as drawn, too.
    Source: Fisher 1935, "The design of experiments", Section 21; Phipson and Smyth 2010, arXiv 1603.05766, for the
    random subset; as SciPy's ``permutation_test`` of type ``samples``. Clusters: Gail 1996, "On design considerations
    and randomization-based inference for community intervention trials".
    """
    test = stats.permutation_test(
        (by_prompt, np.zeros_like(by_prompt)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=settings.permutations,
        vectorized=True,
        batch=1000,
        random_state=rng,
    )
    return float(test.pvalue)


def _check_complete(
    images: pd.DataFrame, both: pd.DataFrame, pair: tuple[str, str], *, metric: str, attack: str, steps: int
) -> None:
    """Refuses models of which one has images of a common prompt that the other lacks."""
    state = images[(images["metric"] == metric) & (images["attack"] == attack) & (images["steps"] == steps)]
    common = both.groupby("prompt_id")["image_index"].nunique()
    for model in pair:
        own = state[(state["model"] == model) & state["prompt_id"].isin(common.index)]
        counts = own.groupby("prompt_id")["image_index"].nunique()
        if len(unequal := counts[counts != common]):
            raise ValueError(
                f"{metric} {attack} {steps}: {len(unequal)} prompts, first '{unequal.index[0]}', have unequal numbers "
                f"of images of {' and '.join(pair)}"
            )


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
