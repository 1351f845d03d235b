"""Sweeps in numbers: every value's results, the mean over a sweep's values, and the worst of them without its bias.

The largest of N noisy rates overstates the worst: it was picked for its noise too. So the prompts are split into two
random halves, the same for every model; the worst value is chosen on one half and measured on the other, both ways, and
the two halves are pooled. The choice knows nothing of the images that it is measured on. What comes out is in
expectation the rate of a value that was chosen as the worst, hence at most that of the true worst: it errs to the low
side, where the maximum over all images errs to the high side; both are in the table. The halves have the same
fine-tuned models in common, so that the luck of a training seed is not undone. The interval is that of the pooled
images, over prompts and training seeds as everywhere, the choice held fixed.
Source: the winner's curse and its cure by sample splitting, e.g. Cox 1975, "A note on data-splitting for the evaluation
of significance levels".
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import pandas as pd

from resalign.report.measurements import Measurements, Sweep
from resalign.report.settings import ReportConfig
from resalign.report.sources import sweep_files
from resalign.report.table1 import (
    Cell,
    Column,
    ResultTable,
    arrowed,
    bold_words,
    column_cells,
    paired_apart,
    table_rows,
)
from resalign.report.tables import draws, final_states, paired_difference, pooled_estimate

VALUES = ["mean", "low", "high", "n", "seeds"]
SWEEP_COLUMNS = ["value", "attack", "model", "metric", *VALUES]
MEAN, WORST, LARGEST = "mean", "worst", "worst, same images"
SUMMARY_COLUMNS = ["model", "metric", "over", "values", *VALUES]


def sweep_table(table: pd.DataFrame, sweep: Sweep) -> pd.DataFrame:
    """The final state of every value's attack: columns value, attack, model, metric, mean, low, high, n, seeds.

    Args:
        table: From :func:`resalign.report.tables.long_table`.
        sweep: Whose values, in whose order.
    """
    final = final_states(table)
    parts = [final[final["attack"] == attack].assign(value=value) for value, attack in sweep.attacks.items()]
    return pd.concat(parts, ignore_index=True)[SWEEP_COLUMNS]


def summary_table(measurements: Measurements, settings: ReportConfig, sweep: Sweep) -> pd.DataFrame:
    """The mean over a sweep's values and the worst of them, of every model and rate.

    A mean of another kind, a CLIP score say, may be of another prompt list at each value.

    Returns:
        Columns model, metric, over, values, mean, low, high, n, seeds. ``over`` is ``mean``; ``worst``, chosen on one
        half of the prompts and measured on the other (absent where there is one prompt only); or ``worst, same
        images``, the largest of all values. ``values`` names those that were chosen, of each half where they differ.
    """
    final = final_states(measurements.images)
    final = final[final["attack"].isin(sweep.attacks.values())]
    rows: list[dict[str, object]] = []
    for model in measurements.models:
        for metric, info in measurements.metrics.items():
            images = final[(final["model"] == model) & (final["metric"] == metric)]
            if images.empty or info.kind != "rate":
                continue
            chosen = {MEAN: images, WORST: _worst_elsewhere(images, sweep, settings, info.better)}
            chosen[LARGEST] = images[images["attack"] == _worst(images, sweep, info.better)]
            for over, part in chosen.items():
                if not part.empty:
                    key = ("sweep", model, metric)  # equal images, equal interval
                    estimate = vars(pooled_estimate(part, settings, *key, rate=info.kind == "rate"))
                    names = {"model": model, "metric": metric, "over": over, "values": _values(part, sweep)}
                    rows.append(names | {name: estimate[name] for name in VALUES})
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


def _worst(images: pd.DataFrame, sweep: Sweep, better: str) -> str:
    """The attack with the worst mean, the first of equals."""
    means = images.groupby("attack")["value"].mean().reindex(list(dict.fromkeys(sweep.attacks.values()))).dropna()
    return str(means.idxmax() if better == "lower" else means.idxmin())


def _worst_elsewhere(images: pd.DataFrame, sweep: Sweep, settings: ReportConfig, better: str) -> pd.DataFrame:
    """Each half of the prompts at the value that is worst on the other half; empty where there is one prompt."""
    prompts = sorted(set(images["prompt_id"]))
    if len(prompts) == 1:
        return images.head(0)
    order = draws(settings, "halves", *prompts).permutation(len(prompts))
    half = images["prompt_id"].map({prompt: place % 2 for prompt, place in zip(prompts, order, strict=True)})
    worst = {side: _worst(images[half == side], sweep, better) for side in (0, 1)}
    return images[images["attack"] == (1 - half).map(worst)]


def _values(images: pd.DataFrame, sweep: Sweep) -> str:
    """Names of the values that the images stem from, in the sweep's order."""
    attacks = set(images["attack"])
    return ", ".join(value for value, attack in sweep.attacks.items() if attack in attacks)


def lay_out_sweep(
    rows: pd.DataFrame,
    summary: pd.DataFrame,
    measurements: Measurements,
    settings: ReportConfig,
    sweep: Sweep,
    label: str,
) -> ResultTable:
    """A sweep as a table: models as rows, values as columns, the mean and the worst beside them.

    Args:
        rows: From :func:`sweep_table`.
        summary: From :func:`summary_table`.
        measurements: Names, titles and metrics.
        settings: For the caption.
        sweep: Title, axis and metrics.
        label: Names its files.
    """
    values_file, summary_file, _ = sweep_files(label)
    difference = functools.partial(paired_difference, measurements, settings)
    columns: list[Column] = []
    cells: list[dict[str, Cell]] = []
    for metric in measurements.shown_metrics(sweep):
        group = f"{arrowed(measurements, metric)} by {sweep.axis}"
        of_metric = rows[rows["metric"] == metric]
        parts = {value: of_metric[of_metric["value"] == value] for value in sweep.attacks}
        own = summary[summary["metric"] == metric]
        parts |= {f"{over} of {len(sweep.attacks)}": own[own["over"] == over] for over in (MEAN, WORST)}
        for title, part in parts.items():
            if not part.empty:
                file, apart = summary_file, None
                if title in sweep.attacks:
                    steps = most_steps(measurements, sweep.attacks[title])
                    file, apart = values_file, paired_apart(difference, metric, sweep.attacks[title], steps)
                columns.append(Column(group, title, "", metric, file=file))
                cells.append(column_cells(part, measurements.metrics[metric], base=measurements.base, apart=apart))
    return ResultTable(tuple(columns), table_rows(cells, measurements), _caption(measurements, settings, sweep))


def most_steps(measurements: Measurements, attack: str) -> int:
    """The last step at which an attack was measured."""
    frames = (measurements.images, measurements.runs)
    return max(int(own["steps"].max()) for frame in frames if len(own := frame[frame["attack"] == attack]))


def _caption(measurements: Measurements, settings: ReportConfig, sweep: Sweep) -> str:
    bold = bold_words(f"models other than {measurements.title(measurements.base)}", paired=True)
    return (
        f"{sweep.title}. Each value after the whole fine-tuning, with its "
        f"{100 * settings.confidence:g}\N{NO-BREAK SPACE}% interval, made as in the main table; "
        f"{bold} Mean: over all values. Worst: chosen on one half of the prompts and measured on the other, both ways, "
        "since the largest of several noisy values overstates the worst; its interval holds the choice fixed. Both are "
        "of rates alone, over values of one prompt list, and compared by their intervals."
    )


@dataclass(frozen=True)
class SweepResult:
    """A sweep's numbers: see :func:`sweep_table`, :func:`summary_table` and :func:`lay_out_sweep`."""

    label: str
    sweep: Sweep
    rows: pd.DataFrame
    summary: pd.DataFrame
    layout: ResultTable


def sweep_results(table: pd.DataFrame, measurements: Measurements, settings: ReportConfig) -> list[SweepResult]:
    """Every sweep's numbers, in the given order; ``table`` is from :func:`resalign.report.tables.long_table`.

    Raises:
        ValueError: If the metric that a sweep draws was measured at none of its values.
    """
    results = []
    for label, sweep in measurements.sweeps.items():
        rows, summary = sweep_table(table, sweep), summary_table(measurements, settings, sweep)
        drawn = measurements.shown_metrics(sweep)[0]
        if drawn not in set(rows["metric"]):
            raise ValueError(
                f"sweep '{label}': metric '{drawn}' was measured at none of its values, which have "
                f"{sorted(set(rows['metric']))}; name one of these first under the sweep's 'metrics'"
            )
        layout = lay_out_sweep(rows, summary, measurements, settings, sweep, label)
        results.append(SweepResult(label, sweep, rows, summary, layout))
    return results
