"""The Pareto front of safety, utility and learnability."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from resalign.analysis import statistics
from resalign.analysis.frames import final_states, held, pooled_estimate, select
from resalign.analysis.measurements import NOT_ATTACKED, Measurements
from resalign.analysis.statistics import Estimate
from resalign.config.report import ReportConfig

QUANTITIES = ("safety", "utility", "learnability")
PARETO_COLUMNS = [
    "model",
    *(f"{quantity}{end}" for quantity in QUANTITIES for end in ("", "_low", "_high")),
    "dominated_by",
]


def weighed_metrics(measurements: Measurements) -> dict[str, str]:
    """Quantity to the metric that stands for it: the first of each group, where there is one."""
    headlines = {quantity: measurements.headline(quantity) for quantity in QUANTITIES}
    return {quantity: metric for quantity, metric in headlines.items() if metric is not None}


def pareto_table(
    table: pd.DataFrame, measurements: Measurements, settings: ReportConfig, weighed: Mapping[str, str]
) -> pd.DataFrame:
    """Each model's safety after fine-tuning, utility before it and learnability, and the models that dominate it.

    Safety and learnability are means over the attacks after their last step; learnability has one value a training
    seed. A model is dominated by another whose mean is no worse in any of the three and better in one. That compares
    means: their intervals show whether the difference could be chance.

    Args:
        table: From :func:`resalign.analysis.frames.long_table`.
        measurements: Values, names and metrics; all of its attacks count.
        settings: Of the intervals.
        weighed: From :func:`weighed_metrics`.

    Returns:
        Columns model; safety, utility, learnability, each with _low and _high (NaN without an interval, and where there
        is no such metric); dominated_by, labels joined by a space, empty on the front. Models that lack one of the
        metrics, in the states that it is taken from, are left out.
    """
    rows: list[dict[str, object]] = []
    for model in measurements.models:
        estimates = {
            "safety": _after(measurements, settings, model, weighed["safety"]),
            "utility": _before(table, model, weighed.get("utility")),
            "learnability": _learnt(measurements, settings, model, weighed.get("learnability")),
        }
        if "utility" in weighed and all(estimates[quantity] for quantity in weighed):
            row: dict[str, object] = {"model": model}
            for quantity, value in estimates.items():
                ends = (value.mean, value.low, value.high) if value else (float("nan"),) * 3
                row |= dict(zip((quantity, f"{quantity}_low", f"{quantity}_high"), ends, strict=True))
            rows.append(row)
    frame = pd.DataFrame(rows, columns=PARETO_COLUMNS[:-1])
    return frame.assign(dominated_by=_dominated_by(frame, measurements, weighed))


def _after(measurements: Measurements, settings: ReportConfig, model: str, metric: str) -> Estimate | None:
    """The pooled value of an image-level metric over the last steps of all attacks."""
    images = final_states(measurements.images)
    after = images[(images["model"] == model) & (images["metric"] == metric) & (images["attack"] != NOT_ATTACKED)]
    if after.empty:
        return None
    info = measurements.metrics[metric]
    return held(pooled_estimate(after, settings, "pareto", model, metric, rate=info.kind == "rate"), info)


def _before(table: pd.DataFrame, model: str, metric: str | None) -> Estimate | None:
    rows = [] if metric is None else select(table, metric=metric, model=model).to_dict("records")
    return Estimate(**{name: rows[0][name] for name in ("mean", "std", "low", "high", "n", "seeds")}) if rows else None


def _learnt(measurements: Measurements, settings: ReportConfig, model: str, metric: str | None) -> Estimate | None:
    """A metric with one value per run, over the last steps of all attacks and across training seeds."""
    runs = final_states(measurements.runs)
    attacked = runs[(runs["model"] == model) & (runs["metric"] == metric) & (runs["attack"] != NOT_ATTACKED)]
    if attacked.empty:
        return None
    values = attacked.groupby("seed")["value"].mean().to_numpy(np.float64)
    estimate = statistics.across_seeds(values, int(attacked["n"].sum()), settings.confidence)
    return held(estimate, measurements.metrics[str(metric)])


def _dominated_by(frame: pd.DataFrame, measurements: Measurements, weighed: Mapping[str, str]) -> list[str]:
    """The models that are no worse than each row in any mean and better in one."""
    signs = {q: 1 if measurements.metrics[m].better == "lower" else -1 for q, m in weighed.items()}
    cost = np.stack([sign * frame[quantity].to_numpy(np.float64) for quantity, sign in signs.items()], axis=1)
    names = frame["model"].to_numpy()
    better = [(cost <= row).all(axis=1) & (cost < row).any(axis=1) for row in cost]
    return [" ".join(names[others]) for others in better]
