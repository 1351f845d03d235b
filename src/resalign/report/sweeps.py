"""Sweeps in the report: the values of each as a table and as panels, with their mean and worst."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from resalign.analysis.measurements import Measurements, Sweep
from resalign.analysis.sweeps import summary_table, sweep_table
from resalign.config.report import ReportConfig
from resalign.display.drawing import Panel
from resalign.display.products import Table
from resalign.display.variants_table import lay_out_variants, variants_panels


@dataclass(frozen=True)
class SweepResult:
    """A sweep's numbers and how they are shown.

    Attributes:
        label: Names its files.
        sweep: Title, axis, note, attacks and metrics.
        rows: From :func:`resalign.analysis.sweeps.sweep_table`.
        summary: From :func:`resalign.analysis.sweeps.summary_table`.
        table: All rows, of which the sweep's metrics are laid out.
        panels: The sweep's first metric, and learnability.
    """

    label: str
    sweep: Sweep
    rows: pd.DataFrame
    summary: pd.DataFrame
    table: Table
    panels: list[Panel]


def sweep_results(values: pd.DataFrame, measurements: Measurements, settings: ReportConfig) -> list[SweepResult]:
    """Every sweep, in the given order; ``values`` is from :func:`resalign.analysis.frames.long_table`.

    Raises:
        ValueError: If a metric of a sweep was measured at none of its values.
    """
    results = []
    for label, sweep in measurements.sweeps.items():
        rows, metrics = sweep_table(values, label, sweep), measurements.shown_metrics(sweep)
        for metric in metrics:
            if metric not in set(rows["metric"]):
                raise ValueError(
                    f"sweep '{label}': metric '{metric}' was measured at none of its values, which have "
                    f"{sorted(set(rows['metric']))}; name these under the sweep's 'metrics'"
                )
        drawn = [metric for metric in dict.fromkeys([metrics[0], measurements.headline("learnability")]) if metric]
        caption = (
            f"{sweep.title}. Each value after the whole fine-tuning, with its "
            f"{100 * settings.confidence:g}\N{NO-BREAK SPACE}% interval, made as in the main table."
        )
        layout = lay_out_variants(rows[rows["metric"].isin(metrics)], measurements, caption)
        panels = variants_panels(rows, measurements, settings, drawn, {label: sweep.axis})
        summary = summary_table(measurements, settings, sweep)
        results.append(SweepResult(label, sweep, rows, summary, Table(rows, layout, sweep.axis), panels))
    return results
