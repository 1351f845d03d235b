"""The finding, in sentences written from the numbers: whichever model is best is named, and what it keeps."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from resalign.report.measurements import NOT_ATTACKED, Measurements, MetricInfo
from resalign.report.settings import ReportConfig
from resalign.report.table1 import target_title
from resalign.report.tables import final_states, number, paired_difference, select, targets

# The difference is the first model's value minus the second's, over the images that both have.
PAIRED_COLUMNS = ["attack", "dataset", "steps", "metric", "first", "second", "difference", "low", "high", "n"]


@dataclass(frozen=True)
class Finding:
    """What the page says first.

    Attributes:
        result: Sentences on what comes back.
        kept: Sentences on what the best models still do.
        paired: The comparisons that ``result`` states: columns :data:`PAIRED_COLUMNS`, one row an attack.
    """

    result: tuple[str, ...]
    kept: tuple[str, ...]
    paired: pd.DataFrame


def write_finding(table: pd.DataFrame, measurements: Measurements, settings: ReportConfig, concept: str) -> Finding:
    """Writes the finding.

    It gives the first safety metric before fine-tuning and after each target, best model first, whether the difference
    between the best two could be chance (paired over the same seeds, prompts and noise), and the best models' utility
    and learnability beside the base's.

    Args:
        table: From :func:`resalign.report.tables.long_table`.
        measurements: Names, titles and metrics.
        settings: For the intervals.
        concept: What a model should no longer show, such as ``a seven``.

    Raises:
        ValueError: If there is no safety metric, or the first one was not measured before fine-tuning.
    """
    metric = measurements.safety_metric
    info = measurements.metrics[metric]
    final = final_states(table)
    plain = _ranked(select(final, metric=metric), info)
    if plain.empty:
        raise ValueError(f"metric '{metric}' was not measured before any fine-tuning; evaluate the models themselves")
    result = _before(plain, measurements, settings, info, concept)
    best: list[str] = []
    paired: list[dict[str, object]] = []
    for attack in targets(final):
        rows = _ranked(select(final, metric=metric, attack=attack), info)
        if not rows.empty:
            compared = _best_two(rows, measurements, settings, metric)
            paired += [compared] if compared else []
            result.append(_after(final, rows, measurements, settings, metric, compared))
            others = rows[rows["model"] != measurements.base]
            best += [str(model) for model in others["model"].head(1) if model not in best]
    if int(table["seeds"].max()) == 1:
        result.append("With one training seed, the intervals say nothing about how training varies.")
    kept = tuple(text for model in best for text in _kept(final, measurements, model))
    return Finding(tuple(result), kept, pd.DataFrame(paired, columns=PAIRED_COLUMNS))


def value_text(row: Mapping[Hashable, Any], info: MetricInfo) -> str:
    """Such as ``31.2 % [25.0, 38.1]`` for a rate and ``0.88 [0.85, 0.91]`` otherwise."""
    ends = float(row["low"]), float(row["high"])
    if info.kind == "rate":
        text, low, high = f"{100 * float(row['mean']):.1f}\N{NO-BREAK SPACE}%", *(f"{100 * end:.1f}" for end in ends)
    else:
        text, low, high = number(float(row["mean"]), info), *(number(end, info) for end in ends)
    return text if math.isnan(ends[0]) else f"{text} [{low}, {high}]"


def _ranked(rows: pd.DataFrame, info: MetricInfo) -> pd.DataFrame:
    """Best first; equal values keep the models' order."""
    return rows.sort_values("mean", ascending=info.better == "lower", kind="stable")


def _listed(rows: pd.DataFrame, measurements: Measurements, settings: ReportConfig, info: MetricInfo) -> str:
    """``A 1.2 % [0.4, 3.0], B … and C …``, or the ends of the range where there are many."""
    parts = [f"{measurements.title(str(row['model']))} {value_text(row, info)}" for row in rows.to_dict("records")]
    if len(parts) > settings.finding_models:
        return f"from {parts[0]} to {parts[-1]}, {len(parts)} models in all"
    return _joined(parts)


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _before(
    rows: pd.DataFrame, measurements: Measurements, settings: ReportConfig, info: MetricInfo, concept: str
) -> list[str]:
    base, others = rows[rows["model"] == measurements.base], rows[rows["model"] != measurements.base]
    sentences = []
    for row in base.to_dict("records"):
        text = f"Before unlearning, {measurements.title(measurements.base)}"
        if info.kind == "rate":
            sentences.append(f"{text} shows {concept} in {value_text(row, info)} of its images.")
        else:
            sentences.append(f"{text} has {info.title} {value_text(row, info)} for {concept}.")
    if not others.empty:
        sentences.append(f"Unlearned, not yet fine-tuned: {_listed(others, measurements, settings, info)}.")
    return sentences


def _best_two(
    rows: pd.DataFrame, measurements: Measurements, settings: ReportConfig, metric: str
) -> dict[str, object] | None:
    """The best two models but the base, compared over their common images; None where they have too few."""
    others = rows[rows["model"] != measurements.base]
    if len(others) < 2:
        return None
    first, second = (str(model) for model in others["model"].head(2))
    attack, steps = str(rows["attack"].iloc[0]), int(rows["steps"].iloc[0])
    found = paired_difference(measurements, settings, (first, second), metric=metric, attack=attack, steps=steps)
    if found is None or math.isnan(found.low):
        return None
    state = {"attack": attack, "dataset": str(rows["dataset"].iloc[0]), "steps": steps, "metric": metric}
    return {
        **state,
        "first": first,
        "second": second,
        "difference": found.mean,
        "low": found.low,
        "high": found.high,
        "n": found.n,
    }


def _after(
    final: pd.DataFrame,
    rows: pd.DataFrame,
    measurements: Measurements,
    settings: ReportConfig,
    metric: str,
    compared: Mapping[str, object] | None,
) -> str:
    """The values after one target's fine-tuning, best first, and whether the best stands apart."""
    attack = str(rows["attack"].iloc[0])
    others = rows[rows["model"] != measurements.base]
    listed = _listed(rows if others.empty else others, measurements, settings, measurements.metrics[metric])
    text = f"After {target_title(measurements, final, attack)}: {listed}"
    if len(others) < 2:
        return f"{text}."
    first, second = (measurements.title(str(model)) for model in others["model"].head(2))
    return f"{text}; {_compared(compared, measurements.metrics[metric], first, second)}."


def _compared(found: Mapping[str, Any] | None, info: MetricInfo, best: str, other: str) -> str:
    """Whether the best stands apart from the second best: not where the difference's interval holds 0."""
    if found is None:
        return f"{best} and {other} share too few images for a paired comparison"
    scale, unit, decimals = (100.0, " points", 1) if info.kind == "rate" else (1.0, "", info.decimals)
    mean, low, high = (scale * float(found[name]) for name in ("difference", "low", "high"))
    paired = f"paired over {found['n']:,} images"
    if low <= 0.0 <= high:
        ends = f"[{low:+.{decimals}f}, {high:+.{decimals}f}]".replace("-", "−")
        return f"{best} and {other} cannot be told apart (difference {ends}{unit}, {paired})"
    nearer, farther = sorted((abs(low), abs(high)))
    gap = f"{abs(mean):.{decimals}f}{unit} [{nearer:.{decimals}f}, {farther:.{decimals}f}]"
    return f"{best} is {gap} {'below' if mean < 0 else 'above'} {other}, {paired}"


def _kept(final: pd.DataFrame, measurements: Measurements, model: str) -> list[str]:
    """A model's utility before fine-tuning and its learnability after it, beside the base's."""
    parts = []
    states = {"utility": [NOT_ATTACKED], "learnability": targets(final)}
    base = measurements.base
    for group, attacks in states.items():
        metric = measurements.headline(group)
        if metric is None:
            continue
        info, named = measurements.metrics[metric], False
        for attack in attacks:
            rows = select(final, metric=metric, attack=attack)
            values = {str(row["model"]): value_text(row, info) for row in rows.to_dict("records")}
            if model not in values:
                continue
            when = "before fine-tuning" if attack == NOT_ATTACKED else f"on {measurements.target(attack)}"
            title = "" if named else f"{info.title} ({info.better} is better) "
            beside = f" against {measurements.title(base)}'s {values[base]}" if base in values else ""
            parts.append(f"{title}{when} {values[model]}{beside}")
            named = True
    return [f"What {measurements.title(model)} keeps: {_joined(parts)}."] if parts else []
