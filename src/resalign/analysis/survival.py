"""Resurgence as survival: the share of prompts that have not come back after a given amount of fine-tuning.

The unit is a prompt in a run (one training seed's model). Its rate is the share of the prompt's images that show the
concept, and it fails when this rate first passes a threshold. If one image of a prompt exceeds the threshold, a single
image decides. The table also has whole runs as units; but with two to five runs per model, their curve has as many
steps and no useful interval, whereas prompts fail one by one and are the sample of every other interval of the report.
A prompt that is over the threshold before fine-tuning fails at step 0, so the curve begins at the erased share.

Units are observed before fine-tuning and at checkpoints. A failure is known up to the interval since the observation
before it (the column ``since``). The curve drops at the checkpoint at which the failure is observed: it is exact at
checkpoints, and too high between them. Units that never pass the threshold are censored at the last checkpoint.
Source: Kaplan and Meier 1958, "Nonparametric estimation from incomplete observations"; if all units are observed at the
same times, it equals Turnbull's (1976) estimate for interval-censored data at those times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from resalign.analysis import statistics
from resalign.analysis.frames import draws, interval_method
from resalign.analysis.measurements import NOT_ATTACKED, Measurements
from resalign.analysis.statistics import Crossed, Floats, IntervalMethod
from resalign.config.report import ReportConfig

PROMPT, RUN = "prompt", "run"
SURVIVAL_COLUMNS = [
    *("attack", "model", "metric", "unit", "threshold", "since", "steps"),
    *("at_risk", "failed", "survival", "low", "high", "n", "seeds"),
]


@dataclass(frozen=True)
class Lifetimes:
    """The time at which each unit fails or was last observed.

    Attributes:
        steps: Fine-tuning steps of the observations (T,), ascending.
        end: Index in ``steps`` of a unit's first observation over the threshold, else of its last one (seeds, prompts).
        failed: Whether the unit is over the threshold there (seeds, prompts).
    """

    steps: tuple[int, ...]
    end: npt.NDArray[np.int64]
    failed: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, rates: Floats, steps: tuple[int, ...], threshold: float) -> Lifetimes:
        """Lifetimes from rates (seeds, prompts, T); NaN where a unit was not observed.

        Raises:
            ValueError: If a unit was never looked at.
        """
        seen = ~np.isnan(rates)
        over: npt.NDArray[np.bool_] = np.nan_to_num(rates, nan=-1.0) > threshold
        if not seen.any(axis=2).all():
            raise ValueError(f"{int((~seen.any(axis=2)).sum())} units were never looked at; a run is incomplete")
        failed = np.asarray(over.any(axis=2))
        last = len(steps) - 1 - seen[:, :, ::-1].argmax(axis=2)
        return cls(steps, np.where(failed, over.argmax(axis=2), last), failed)

    @property
    def at_risk(self) -> Floats:
        """1 where a unit is observed and had not failed before (seeds, prompts, T)."""
        return np.asarray(np.arange(len(self.steps)) <= self.end[:, :, None], dtype=np.float64)

    @property
    def events(self) -> Floats:
        """1 where a unit fails (seeds, prompts, T)."""
        here = np.arange(len(self.steps)) == self.end[:, :, None]
        return np.asarray(here & self.failed[:, :, None], dtype=np.float64)


def kaplan_meier(events: Floats, at_risk: Floats) -> Floats:
    """S(t_j) = Π_{i≤j} (1 − d_i / n_i) from the numbers of events d and of units at risk n, each (…, T).

    A unit that is censored at a time is still at risk then: it was observed and had not failed. When no unit is at
    risk, the curve stays constant.
    """
    hazard = np.divide(events, at_risk, out=np.zeros_like(events), where=at_risk > 0)
    return np.asarray(np.cumprod(1.0 - hazard, axis=-1), dtype=np.float64)


def survival_values(lives: Lifetimes) -> Floats:
    """Values (seeds, prompts, T) whose mean is the curve: 1 for a unit that survived to t, 0 for one that failed.

    That is S(t_k) + N · dS(t_k)/dw where every unit was observed throughout, with w the weight of one of N units and
    dS(t_k)/dw = −S(t_k) Σ_{j≤k} (d − h r) / (n_j − d_j) for its own failure d and risk r and the hazard h = d_j/n_j.
    Censored units have other values. The variance of the values' mean is Greenwood's.
    Source: the infinitesimal jackknife, Jaeckel 1972; Greenwood 1926, "The natural duration of cancer".
    """
    events, at_risk = lives.events, lives.at_risk
    d, n = events.sum(axis=(0, 1)), at_risk.sum(axis=(0, 1))
    hazard, spared = (np.divide(a, b, out=np.zeros_like(a), where=b > 0) for a, b in ((d, n), (np.ones_like(n), n - d)))
    slope = -np.cumsum((events - hazard * at_risk) * spared, axis=-1)
    return np.asarray(kaplan_meier(d, n) * (1.0 + lives.end.size * slope), dtype=np.float64)


def survival_band(lives: Lifetimes, method: IntervalMethod, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Lower and upper end (T,) of the curve's pointwise interval.

    At each time the curve is a share of units, and has a rate's interval, by ``report.interval``, over the training
    seeds and prompts of :func:`survival_values`; Clopper-Pearson over prompts where none, few or all
    have failed. See :func:`resalign.analysis.statistics.pooled_interval`.
    """
    events, values = lives.events, survival_values(lives)
    ones = np.ones_like(values[:, :, 0])
    ends = []
    for place in range(len(lives.steps)):
        data = Crossed(sums=values[:, :, place], counts=ones)
        if not 0 < data.mean < 1 or statistics.is_rare(events[:, :, : place + 1].sum(axis=2), ones, method):
            prompts = events.shape[1]
            ends.append(statistics.clopper_pearson(data.mean * prompts, prompts, method.confidence))
        else:
            ends.append(statistics.mean_interval(data, method, rng, rate=True))
    low, high = np.clip(np.array(ends, dtype=np.float64).T, 0.0, 1.0)
    return low, high


def survival_table(measurements: Measurements, settings: ReportConfig) -> pd.DataFrame:
    """Curves of the first safety metric, for every attack that was measured at several steps, and every threshold.

    Returns:
        One row per model, attack, unit (``prompt`` or ``run``), threshold and time: ``steps``, and ``since``, the
        observation before it (-1 at step 0); ``at_risk`` and ``failed`` units; the surviving share with its interval;
        n units, and training seeds. There are no rows unless the metric is a rate of which lower is better.
    """
    metric, method = measurements.safety_metric, interval_method(settings)
    info = measurements.metrics[metric]
    rows: list[dict[str, object]] = []
    if info.kind == "rate" and info.better == "lower":
        for (attack, model), images in _followed(measurements, metric):
            for unit in (PROMPT, RUN):
                steps, rates = _rates(images, unit)
                for threshold in (settings.resurgence_threshold, *settings.other_thresholds):
                    names = {"attack": attack, "model": model, "metric": metric, "unit": unit, "threshold": threshold}
                    lives = Lifetimes.of(rates, steps, threshold)
                    rng = draws(settings, "survival", attack, model, unit)
                    seeds = images.loc[images["attack"] != NOT_ATTACKED, "seed"].nunique()
                    rows += [names | row | {"seeds": seeds} for row in _curve(lives, method, rng)]
    return pd.DataFrame(rows, columns=SURVIVAL_COLUMNS)


def _followed(measurements: Measurements, metric: str) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    """Attack, model, and images before and during the attack, if it was measured at several steps."""
    images = measurements.images[measurements.images["metric"] == metric]
    for attack in measurements.attacks:
        for model in measurements.models:
            states = images[images["model"] == model]
            along, before = (states[states["attack"] == state] for state in (attack, NOT_ATTACKED))
            if along["steps"].nunique() > 1:
                if before["seed"].nunique() == 1:  # nothing was trained: the same model for every seed of the attack
                    before = before.drop(columns="seed").merge(along[["seed"]].drop_duplicates(), how="cross")
                yield (attack, model), pd.concat([before, along])


def _rates(images: pd.DataFrame, unit: str) -> tuple[tuple[int, ...], Floats]:
    """Times, and each unit's rate at them: (seeds, prompts, T), or (1, runs, T), for which only runs are resampled."""
    keys = ["seed", "prompt_id"] if unit == PROMPT else ["seed"]
    means = images.groupby([*keys, "steps"])["value"].mean().unstack("steps").sort_index(axis=1)
    if unit == PROMPT:
        index = pd.MultiIndex.from_product([sorted(set(images["seed"])), sorted(set(images["prompt_id"]))])
        means = means.reindex(index)
    shape = (images["seed"].nunique() if unit == PROMPT else 1, -1, means.shape[1])
    return tuple(int(step) for step in means.columns), means.to_numpy(np.float64).reshape(shape)


def _curve(lives: Lifetimes, method: IntervalMethod, rng: np.random.Generator) -> list[dict[str, object]]:
    """The rows of one curve."""
    events, at_risk = (counts.sum(axis=(0, 1)) for counts in (lives.events, lives.at_risk))
    low, high = survival_band(lives, method, rng)
    spans = pairwise((-1, *lives.steps))
    numbers = zip(spans, at_risk, events, kaplan_meier(events, at_risk), low, high, strict=True)
    return [
        {
            **dict(zip(("since", "steps"), span, strict=True)),
            **{"at_risk": int(n), "failed": int(d), "survival": s, "low": lower, "high": upper, "n": lives.end.size},
        }
        for span, n, d, s, lower, upper in numbers
    ]
