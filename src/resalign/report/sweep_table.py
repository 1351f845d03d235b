"""A sweep as a table: models as rows, values as columns."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import pandas as pd

from resalign.analysis.frames import paired_difference
from resalign.analysis.measurements import Measurements, Sweep
from resalign.analysis.sweeps import MEAN, WORST, most_steps, summary_table, sweep_table
from resalign.config.report import ReportConfig
from resalign.display.layout import (
    Cell,
    Column,
    ResultTable,
    arrowed,
    bold_words,
    column_cells,
    paired_apart,
    table_rows,
)
from resalign.jobs.report import sweep_files


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
    """Every sweep's numbers, in the given order; ``table`` is from :func:`resalign.analysis.frames.long_table`.

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
