"""The finding, in sentences written from the numbers: whichever model is best is named, and what it keeps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from resalign.analysis.frames import final_states, paired_difference, select, targets
from resalign.analysis.measurements import NOT_ATTACKED, Measurements, MetricInfo
from resalign.analysis.statistics import FEWEST_SEEDS
from resalign.config.report import ReportConfig
from resalign.display.layout import target_title
from resalign.display.values import value_text

_ROUNDING = 1e-9  # rates are fractions of images: rounding alone must not decide
# The difference is the first model's value minus the second's, over the images that both have.
PAIRED_COLUMNS = ["attack", "dataset", "steps", "metric", "first", "second", "difference", "low", "high", "n"]


@dataclass(frozen=True)
class Finding:
    """The first sentences of the page.

    Attributes:
        headline: One sentence: what each model shows after fine-tuning, at worst.
        result: Sentences on what comes back.
        kept: Sentences on what the best models, and the method, still do.
        paired: The comparisons that ``result`` states: columns :data:`PAIRED_COLUMNS`, one row a pair of models.
    """

    headline: str
    result: tuple[str, ...]
    kept: tuple[str, ...]
    paired: pd.DataFrame


def write_finding(
    table: pd.DataFrame,
    measurements: Measurements,
    settings: ReportConfig,
    concept: str,
    methods: Sequence[str] = (),
) -> Finding:
    """Writes the finding.

    It gives the first safety metric before fine-tuning and after each target, best model first, whether the difference
    between the best two could be chance (paired over the same seeds, prompts and noise), and the utility and
    learnability of the best models and of the method beside the base's. Equal values are called equal. A target after
    which the base itself shows little of the concept tests no unlearning: it is named, and nothing is concluded of it.

    Args:
        table: From :func:`resalign.analysis.frames.long_table`.
        measurements: Names, titles and metrics.
        settings: For the intervals.
        concept: What a model should no longer show, such as ``a seven``.
        methods: Models of the method that the experiment is about: what they keep is said, best or not.

    Raises:
        ValueError: If there is no safety metric, or the first one was not measured before fine-tuning.
    """
    metric = measurements.safety_metric
    info = measurements.metrics[metric]
    final = final_states(table)
    plain = _ranked(select(final, metric=metric), info)
    if plain.empty:
        raise ValueError(f"metric '{metric}' was not measured before any fine-tuning; evaluate the models themselves")
    tested: list[pd.DataFrame] = []
    result = _before(plain, measurements, settings, info, concept)
    kept: dict[str, None] = {}
    paired: list[dict[str, object]] = []
    for attack in targets(final):
        rows = _ranked(select(final, metric=metric, attack=attack), info)
        if rows.empty:
            continue
        if (lost := _lost(final, rows, measurements, settings, concept)) is not None:
            result.append(lost)
            continue
        tested.append(rows)
        first, second = _leaders(rows, measurements)
        compared = _compared(first, second, rows, measurements, settings, metric)
        paired += compared
        result.append(_after(final, rows, measurements, settings, info, (first, second), compared))
        kept |= dict.fromkeys(first if len(first) <= settings.finding_models else ())
    if (seeds := int(table["seeds"].max())) < FEWEST_SEEDS:
        result.append(
            "With one training seed, the intervals say nothing about how training varies."
            if seeds == 1
            else "Two training seeds hardly show how training varies: no claim about others holds."
        )
    kept |= dict.fromkeys(model for model in measurements.models if model in methods)
    kept_texts = tuple(text for model in kept for text in _kept(final, measurements, model))
    headline = _headline(plain, tested, measurements, settings, info, concept)
    return Finding(headline, tuple(result), kept_texts, pd.DataFrame(paired, columns=PAIRED_COLUMNS))


def _headline(
    plain: pd.DataFrame,
    tested: list[pd.DataFrame],
    measurements: Measurements,
    settings: ReportConfig,
    info: MetricInfo,
    concept: str,
) -> str:
    """One sentence: each model after the fine-tuning that is worst for it, best model first and the base last."""
    states = _ranked(pd.concat(tested or [plain]), info)
    worst = states.groupby("model", sort=False).tail(1)
    is_base = worst["model"] == measurements.base
    rows = worst[~is_base] if (~is_base).sum() <= settings.finding_models else worst[~is_base].iloc[[0, -1]]
    rows = pd.concat([rows, worst[is_base]])
    values = [(_name(measurements, str(row["model"])), _mean_text(row, info)) for row in rows.to_dict("records")]
    (first, value), *others = values
    if info.kind == "rate":
        text = f"{first} shows {concept} in {value} of its images"
        listed = [f"{model} in {value}" for model, value in others]
    else:
        text = f"the {info.title} of {first} for {concept} is {value}"
        listed = [f"that of {model} {value}" for model, value in others]
    when = "After the fine-tuning that is worst for each model" if len(tested) > 1 else "After fine-tuning"
    return f"{when if tested else 'Before any fine-tuning'}, {_joined([text, *listed])}."


def _name(measurements: Measurements, model: str) -> str:
    """A model in a sentence."""
    return "the base model" if model == measurements.base else measurements.title(model)


def _mean_text(row: Mapping[Hashable, Any], info: MetricInfo) -> str:
    """A mean without its interval."""
    return value_text({**row, "low": math.nan, "high": math.nan}, info)


def base_has_lost(mean: float, measurements: Measurements, settings: ReportConfig) -> bool:
    """Whether the base's safety rate in a state is too little of its rate before fine-tuning to test unlearning."""
    info, images = measurements.metrics[measurements.safety_metric], measurements.images
    is_base = (images["model"] == measurements.base) & (images["attack"] == NOT_ATTACKED)
    before = images.loc[is_base & (images["metric"] == measurements.safety_metric), "value"]
    is_shown = info.kind == "rate" and info.better == "lower" and len(before) > 0
    return bool(is_shown and mean < settings.tested_share * before.mean())


def _ranked(rows: pd.DataFrame, info: MetricInfo) -> pd.DataFrame:
    """Best first; equal values keep the models' order."""
    return rows.sort_values("mean", ascending=info.better == "lower", kind="stable")


def _listed(rows: pd.DataFrame, measurements: Measurements, settings: ReportConfig, info: MetricInfo) -> str:
    """``A 1.2 % [0.4, 3.0], B … and C …``, or the ends of the range where there are many."""
    parts = [f"{_name(measurements, str(row['model']))} {value_text(row, info)}" for row in rows.to_dict("records")]
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
        text = "Before unlearning, the base model"
        if info.kind == "rate":
            sentences.append(f"{text} shows {concept} in {value_text(row, info)} of its images.")
        else:
            sentences.append(f"{text} has {info.title} {value_text(row, info)} for {concept}.")
    if not others.empty:
        sentences.append(f"Unlearned, not yet fine-tuned: {_listed(others, measurements, settings, info)}.")
    return sentences


def _lost(
    final: pd.DataFrame, rows: pd.DataFrame, measurements: Measurements, settings: ReportConfig, concept: str
) -> str | None:
    """The sentence on a target after which the base model itself has lost the concept; None for any other."""
    base = rows[rows["model"] == measurements.base]
    if base.empty or not base_has_lost(float(base["mean"].iloc[0]), measurements, settings):
        return None
    info = measurements.metrics[measurements.safety_metric]
    after = target_title(measurements, final, str(rows["attack"].iloc[0]))
    value = value_text(base.to_dict("records")[0], info)
    return (
        f"Excluded: after {after} the base model no longer produces the concept (it shows {concept} in {value} of "
        "its images), so that a low value of another model says nothing of unlearning."
    )


def _leaders(rows: pd.DataFrame, measurements: Measurements) -> tuple[list[str], list[str]]:
    """All models but the base that are best, and all that come next; equal values are one place."""
    places: list[list[str]] = []
    last = math.nan
    for row in rows[rows["model"] != measurements.base].to_dict("records"):
        if not math.isclose(row["mean"], last, rel_tol=_ROUNDING, abs_tol=_ROUNDING):
            places.append([])
            last = float(row["mean"])
        places[-1].append(str(row["model"]))
    padded = [*places, [], []]
    return padded[0], padded[1]


def _compared(
    first: list[str],
    second: list[str],
    rows: pd.DataFrame,
    measurements: Measurements,
    settings: ReportConfig,
    metric: str,
) -> list[dict[str, object]]:
    """Each of the best models with each that comes next, over their common images; not where there are many."""
    attack, steps = str(rows["attack"].iloc[0]), int(rows["steps"].iloc[0])
    state = {"attack": attack, "dataset": str(rows["dataset"].iloc[0]), "steps": steps, "metric": metric}
    comparisons: list[dict[str, object]] = []
    if len(first) * len(second) > settings.finding_models:
        return comparisons
    for pair in itertools.product(first, second):
        of = paired_difference(measurements, settings, pair, metric=metric, attack=attack, steps=steps)
        if of is not None and not math.isnan(of.low):
            names = dict(zip(("first", "second"), pair, strict=True))
            comparisons.append({**state, **names, "difference": of.mean, "low": of.low, "high": of.high, "n": of.n})
    return comparisons


def _after(
    final: pd.DataFrame,
    rows: pd.DataFrame,
    measurements: Measurements,
    settings: ReportConfig,
    info: MetricInfo,
    leaders: tuple[list[str], list[str]],
    compared: list[dict[str, object]],
) -> str:
    """The values after one target's fine-tuning, best first, the base's, and whether the best stands apart."""
    is_base = rows["model"] == measurements.base
    base, others = rows[is_base], rows[~is_base]
    listed = _listed(rows if others.empty else others, measurements, settings, info)
    clauses = [f"After {target_title(measurements, final, str(rows['attack'].iloc[0]))}: {listed}"]
    if len(others) and len(base):
        clauses.append(f"the base model itself {value_text(base.to_dict('records')[0], info)}")
    first, second = ([measurements.title(model) for model in names] for names in leaders)
    if len(first) > 1:
        clauses.append(f"{_joined(first)} are equal")
    clauses += [_comparison(pair, measurements, info) for pair in compared]
    if first and second and not compared:
        many = len(first) * len(second) > settings.finding_models
        why = "are not compared pair by pair, being many" if many else "share too few images for a paired comparison"
        clauses.append(f"{_joined([*first, *second])} {why}")
    return f"{'; '.join(clauses)}."


def _comparison(pair: Mapping[str, Any], measurements: Measurements, info: MetricInfo) -> str:
    """Whether the first stands apart from the second: not where the difference's interval holds 0."""
    best, other = (measurements.title(str(pair[name])) for name in ("first", "second"))
    scale, unit, decimals = (100.0, " points", 1) if info.kind == "rate" else (1.0, "", info.decimals)
    mean, low, high = (scale * float(pair[name]) for name in ("difference", "low", "high"))
    paired = f"paired over {pair['n']:,} images" + (" by training seed" if info.kind == "set" else "")
    if low <= 0.0 <= high:
        ends = f"[{low:+.{decimals}f}, {high:+.{decimals}f}]".replace("-", "−")
        return f"{best} and {other} cannot be told apart (difference {ends}{unit}, {paired})"
    nearer, farther = sorted((abs(low), abs(high)))
    gap = f"{abs(mean):.{decimals}f}{unit} [{nearer:.{decimals}f}, {farther:.{decimals}f}]"
    return f"{best} is {gap} {'below' if mean < 0 else 'above'} {other}, {paired}"


def _kept(final: pd.DataFrame, measurements: Measurements, model: str) -> list[str]:
    """A model's utility before and after fine-tuning and its learnability, beside the base's."""
    groups = []
    states = {"utility": [NOT_ATTACKED, *targets(final)], "learnability": targets(final)}
    base = measurements.base
    for group, attacks in states.items():
        metric = measurements.headline(group)
        if metric is None:
            continue
        info = measurements.metrics[metric]
        parts: list[str] = []
        for attack in attacks:
            rows = select(final, metric=metric, attack=attack)
            values = {str(row["model"]): value_text(row, info) for row in rows.to_dict("records")}
            if model not in values:
                continue
            on = "" if attack == NOT_ATTACKED else f"on {measurements.target(attack)}"
            when = on if group == "learnability" else f"after fine-tuning {on}" if on else "before fine-tuning"
            title = "" if parts else f"{info.directed} "
            beside = f" against the base model's {values[base]}" if base in values else ""
            parts.append(f"{title}{when} {values[model]}{beside}")
        groups += [_joined(parts)] if parts else []
    return [f"What {measurements.title(model)} keeps: {'; '.join(groups)}."] if groups else []
