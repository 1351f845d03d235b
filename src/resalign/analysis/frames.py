"""Measured values as tidy tables: one row per state and metric, one row per run, and the files they become."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from resalign.analysis import statistics
from resalign.analysis.measurements import NOT_ATTACKED, STATE, Measurements, MetricInfo
from resalign.config.report import ReportConfig
from resalign.hashes import verified
from resalign.tensors.seeds import derive_seed

CELL = [*STATE, "metric"]
LONG_COLUMNS = [*CELL, "mean", "std", "low", "high", "n", "seeds", "least", "most", "relapsed", "relapse_high"]
PER_RUN_COLUMNS = [*STATE, "seed", "metric", "value", "low", "high", "n"]
FLOAT_FORMAT = "%.6g"
_SAME = 1e-5  # frames hold six significant digits: differences that vary by less do not vary
_SMALL = 0.1  # below it a value has one significant digit in two after the point
_MOST_DECIMALS = 6  # of a number in a text: a hundred-thousandth of a per cent is none
TEXT_COLUMNS = (
    *("model", "attack", "dataset", "metric", "prompt_set", "prompt_id", "prompt", "path", "variant"),
    *("kind", "direction", "quantity", "stage", "label"),
)


def long_table(measurements: Measurements, settings: ReportConfig) -> pd.DataFrame:
    """One row per state (model, attack, dataset, steps) and metric, with its interval.

    Returns:
        Columns model, attack, dataset, steps, metric, mean, std (across training seeds, ddof 1, NaN with one), low,
        high, n (images in all) and seeds (training seeds); least and most of the seeds' own values; of a safety rate
        after fine-tuning, how many seeds relapsed (their own rate is above ``resurgence_threshold``), and the upper end
        of a seed's chance to; NaN otherwise. Models, attacks and metrics are in the given order; the states before
        fine-tuning come first.
    """
    rows: list[dict[str, object]] = []
    for key, group in measurements.images.groupby(CELL, sort=False):
        info = measurements.metrics[str(key[-1])]
        estimate = held(pooled_estimate(group, settings, *map(str, key), rate=info.kind == "rate"), info)
        own = group.groupby("seed")["value"].mean()
        rows.append(dict(zip(CELL, key, strict=True)) | vars(estimate) | _of_seeds(own, key, info, settings))
    for key, group in measurements.runs.groupby(CELL, sort=False):
        values = group["value"].to_numpy(dtype=np.float64)
        info = measurements.metrics[str(key[-1])]
        estimate = held(statistics.across_seeds(values, int(group["n"].sum()), settings.confidence), info)
        rows.append(dict(zip(CELL, key, strict=True)) | vars(estimate) | _of_seeds(group["value"], key, info, settings))
    return _ordered(pd.DataFrame(rows, columns=LONG_COLUMNS), measurements)


def _of_seeds(
    own: pd.Series, key: tuple[Hashable, ...], info: MetricInfo, settings: ReportConfig
) -> dict[str, float | int]:
    """What the training seeds' own values of a row (seeds,) say; see :func:`long_table`."""
    row: dict[str, float | int] = {"least": float(own.min()), "most": float(own.max())}
    is_safety = info.group == "safety" and info.kind == "rate" and info.better == "lower"
    if is_safety and key[CELL.index("attack")] != NOT_ATTACKED:
        relapsed = int((own > settings.resurgence_threshold).sum())
        chance = statistics.relapse_chance(relapsed, len(own), settings.confidence)
        row |= {"relapsed": relapsed, "relapse_high": chance.high}
    return row


def per_run_table(measurements: Measurements, settings: ReportConfig) -> pd.DataFrame:
    """One row per run (state and training seed) and metric; a rate has a Wilson interval (independent images)."""
    rows: list[dict[str, object]] = []
    for key, group in measurements.images.groupby([*STATE, "seed", "metric"], sort=False):
        values, n = group["value"].to_numpy(dtype=np.float64), len(group)
        low, high = float("nan"), float("nan")
        if measurements.metrics[str(key[-1])].kind == "rate":
            low, high = statistics.wilson(int(values.sum()), n, settings.confidence)
        names = dict(zip([*STATE, "seed", "metric"], key, strict=True))
        rows.append(names | {"value": float(values.mean()), "low": low, "high": high, "n": n})
    frame = pd.DataFrame(rows, columns=PER_RUN_COLUMNS)
    runs = measurements.runs.assign(low=float("nan"), high=float("nan"))[PER_RUN_COLUMNS]
    parts = [part for part in (frame, runs) if not part.empty]
    return _ordered(pd.concat(parts, ignore_index=True) if parts else frame, measurements)


def final_states(table: pd.DataFrame, *within: str) -> pd.DataFrame:
    """The rows before fine-tuning and those with the most steps of their attack.

    Args:
        table: Columns attack and steps.
        within: Columns, such as the variant, within whose values an attack has its most steps.
    """
    most = table.groupby([*within, "attack"])["steps"].transform("max")
    return table[table["steps"] == most].reset_index(drop=True)


def select(
    table: pd.DataFrame,
    *,
    metric: str,
    model: str | None = None,
    attack: str = NOT_ATTACKED,
) -> pd.DataFrame:
    """The rows of one metric and attack, of one model or all."""
    keep = (table["metric"] == metric) & (table["attack"] == attack)
    if model is not None:
        keep &= table["model"] == model
    return table[keep]


def targets(table: pd.DataFrame) -> list[str]:
    """The attacks' labels, in the table's order."""
    return list(dict.fromkeys(table.loc[table["attack"] != NOT_ATTACKED, "attack"]))


def paired_difference(
    measurements: Measurements,
    settings: ReportConfig,
    models: tuple[str, str],
    *,
    metric: str,
    attack: str,
    steps: int,
) -> statistics.Estimate | None:
    """The difference (first minus second model) over the images that both have: same seed, prompt and noise.

    A metric with one value per run is paired by training seed. A model that was not trained is compared with every seed
    of the other; see :func:`paired_values`.

    Returns:
        None where the two models share no image, or no seed.
    """
    info = measurements.metrics[metric]
    both = paired_values(measurements, models, metric=metric, attack=attack, steps=steps)
    if both.empty:
        return None
    values, others = (both[name].to_numpy(np.float64) for name in ("value", "value_second"))
    if info.kind == "set":
        difference = statistics.across_seeds(values - others, int(both["n"].sum()), settings.confidence)
        if not differences_vary(values, others):
            difference = replace(difference, low=float("nan"), high=float("nan"))
    else:
        key = paired_key(models, metric=metric, attack=attack, steps=steps)
        difference = pooled_estimate(both.assign(value=values - others), settings, *key, rate=False)
    return replace(difference, **difference_held(difference.low, difference.high, info)._asdict())


def paired_values(
    measurements: Measurements, models: tuple[str, str], *, metric: str, attack: str, steps: int
) -> pd.DataFrame:
    """The values of two models in one state, paired by training seed, prompt and noise.

    A model that was not trained does not depend on the training seed. It is measured once before fine-tuning, and is
    paired with every seed of the other model there; see :attr:`Measurements.untrained`.

    Returns:
        Columns seed, prompt_id, image_index, value and value_second; seed, n, value and value_second for a metric with
        one value a run.
    """
    is_set = measurements.metrics[metric].kind == "set"
    frame = measurements.runs if is_set else measurements.images
    state = frame[(frame["metric"] == metric) & (frame["attack"] == attack) & (frame["steps"] == steps)]
    first, second = (state[state["model"] == model] for model in models)
    if attack == NOT_ATTACKED:
        first_untrained, other = (model in measurements.untrained for model in models)
        first, second = (
            _at_every_seed(first, second) if first_untrained else first,
            _at_every_seed(second, first) if other else second,
        )
    keys = ["seed"] if is_set else ["seed", "prompt_id", "image_index"]
    columns = [*keys, "value", *(["n"] if is_set else [])]
    return first[columns].merge(second[[*keys, "value"]], on=keys, suffixes=("", "_second"))


def _at_every_seed(untrained: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """The rows of a model that has one seed, at each seed of the other one."""
    return untrained.drop(columns="seed").merge(other[["seed"]].drop_duplicates(), how="cross")


def differences_vary(values: statistics.Floats, others: statistics.Floats) -> bool:
    """Whether paired differences vary beyond the six digits of a file; a t interval needs that they do."""
    return len(values) > 1 and bool(np.ptp(values - others) > _SAME * np.abs(values).max())


def held(estimate: statistics.Estimate, info: MetricInfo) -> statistics.Estimate:
    """The estimate with its interval clipped to the metric's range, which Student's t may exceed."""
    return replace(estimate, **_within(estimate.low, estimate.high, *info.bounds)._asdict())


def difference_held(low: float, high: float, info: MetricInfo) -> statistics.Interval:
    """The interval of a difference of two values of a metric, clipped to the possible range."""
    least, most = info.bounds
    return _within(low, high, least - most, most - least)


def difference_of_rates(low: float, high: float, share: float = 1.0) -> statistics.Interval:
    """The interval of a rate minus a share of another, clipped to the possible range."""
    return _within(low, high, -share, 1.0)


def _within(low: float, high: float, least: float, most: float) -> statistics.Interval:
    """Clips an interval to bounds; NaN (no interval) stays NaN."""
    return statistics.Interval(float(np.clip(low, least, most)), float(np.clip(high, least, most)))


def paired_key(models: tuple[str, str], *, metric: str, attack: str, steps: int) -> tuple[str, ...]:
    """The key of a paired difference's random draws: equal wherever it is reported, with either model first."""
    return ("paired", metric, attack, str(steps), *sorted(models))


def pooled_estimate(images: pd.DataFrame, settings: ReportConfig, *key: str | int, rate: bool) -> statistics.Estimate:
    """Mean of images over training seeds and prompts, with its interval.

    Images of several attacks are pooled over the same prompts and seeds: a prompt or seed is drawn with all of them.

    Args:
        images: Columns seed, prompt_id, value.
        settings: How the interval is made.
        key: What is estimated: equal keys draw alike.
        rate: Whether the values are 0 or 1.
    """
    return statistics.pooled(crossed(images), interval_method(settings), draws(settings, *key), rate=rate)


def draws(settings: ReportConfig, *key: str | int) -> np.random.Generator:
    """The random generator of a key."""
    return np.random.default_rng(derive_seed("report", settings.bootstrap_seed, *key))


def read_csv(path: Path) -> pd.DataFrame:
    """A table of :func:`write_csv`: names stay text, whatever they look like; an empty number is NaN."""
    header = pd.read_csv(verified(path), nrows=0).columns
    text = {name: str for name in TEXT_COLUMNS if name in header}
    empty = {name: [""] for name in header if name not in text}
    return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=empty)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Writes a table so that equal tables give equal bytes: six significant digits, Unix line ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, float_format=FLOAT_FORMAT, lineterminator="\n", encoding="utf-8")


def write_exact_csv(table: pd.DataFrame, path: Path) -> None:
    """Writes a table with as many digits as its numbers have, so that reading gives the same numbers."""
    table.to_csv(path, index=False, lineterminator="\n", encoding="utf-8")


def crossed(group: pd.DataFrame) -> statistics.Crossed:
    """The values of one state and metric by training seed and prompt."""
    return statistics.Crossed.of(
        group["value"].to_numpy(dtype=np.float64),
        group["seed"].to_numpy(dtype=object),
        group["prompt_id"].to_numpy(dtype=object),
    )


def interval_method(settings: ReportConfig) -> statistics.IntervalMethod:
    """The settings of a pooled interval."""
    return statistics.IntervalMethod(
        replicates=settings.replicates,
        confidence=settings.confidence,
        rare_prompts=settings.rare_prompts,
        kind=settings.interval,
    )


def number(value: float, info: MetricInfo) -> str:
    """A value with its metric's decimals and a true minus sign; other rates are never rounded to 0 or 1."""
    if info.kind == "rate":
        return _between(value, info.decimals, (0.0, 1.0))
    text = f"{value:.{info.decimals}f}"
    return text.replace("-", "−") if float(text) else text.removeprefix("-")


def with_decimals(measurements: Measurements) -> Measurements:
    """Gives metrics of small values, such as KID, three significant digits instead of two decimals."""
    metrics = dict(measurements.metrics)
    for frame in (measurements.images, measurements.runs):
        means = frame.groupby(CELL)["value"].mean().abs()
        for name, middle in means.groupby("metric").median().items():
            info = metrics[str(name)]
            if info.kind != "rate" and 0 < middle < _SMALL:
                digits = decimals(middle)
                metrics[str(name)] = replace(info, decimals=max(info.decimals, digits))
    return replace(measurements, metrics=metrics)


def decimals(middle: float) -> int:
    """Decimals that show three significant digits of a metric's median, at least two; three if the median is 0."""
    return max(2, 2 - math.floor(math.log10(middle))) if middle > 0 else 3


def percentage(share: float) -> str:
    """A rate in per cent with one decimal, or more if it would otherwise be shown as 0.0 or 100.0.

    >>> percentage(0.3125), percentage(0.0002), percentage(0.9996)
    ('31.2', '0.02', '99.96')
    """
    return _between(100 * share, 1, (0.0, 100.0))


def interval_text(low: float, high: float, info: MetricInfo, *, per_cent: bool = False) -> str:
    """Such as ``[0.08, 0.17]``; empty where there is no interval.

    Args:
        low: Lower end.
        high: Upper end.
        info: The metric.
        per_cent: Of a rate: in per cent, with one decimal.
    """
    if math.isnan(low):
        return ""
    scale, decimals = (100.0, 1) if per_cent else (1.0, info.decimals)
    if info.kind != "rate":
        return f"[{number(low, info)}, {number(high, info)}]"
    # Rounding may make an interval wider, and not end it at 0 or begin it at 1.
    return f"[{_between(scale * low, decimals, (scale,))}, {_between(scale * high, decimals, (0.0,))}]"


def _between(value: float, decimals: int, limits: Sequence[float]) -> str:
    """A number with the given decimals, or more if rounding would turn it into a limit of its range."""
    text = f"{value:.{decimals}f}"
    while decimals < _MOST_DECIMALS and value > 0 and float(text) in limits and value not in limits:
        decimals += 1
        text = f"{value:.{decimals}f}"
    return text.replace("-", "−") if float(text) else text.removeprefix("-")


def _ordered(table: pd.DataFrame, measurements: Measurements) -> pd.DataFrame:
    """Sorted by model, attack, steps, seed (where there is one) and metric."""
    orders: dict[str, Sequence[str]] = {
        "model": measurements.models,
        "attack": [NOT_ATTACKED, *measurements.attacks],
        "metric": list(measurements.metrics),
    }

    def rank(column: pd.Series) -> pd.Series:
        order = orders.get(str(column.name))
        return column if order is None else column.map({name: place for place, name in enumerate(order)})

    keys = [name for name in (*STATE, "seed", "metric") if name in table.columns]
    return table.sort_values(keys, key=rank, kind="stable", ignore_index=True)
