"""What the report shows of attacks beside the main table: sweeps, survival, and the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from resalign.accounting.times import Timings
from resalign.analysis.frames import write_csv
from resalign.analysis.measurements import Measurements
from resalign.analysis.pareto import pareto_table, weighed_metrics
from resalign.analysis.survival import survival_table
from resalign.config.report import ReportConfig
from resalign.display import drawing
from resalign.display.latex import to_latex
from resalign.display.layout import ResultTable
from resalign.display.panels import Panel
from resalign.display.variants_figure import sweep_figure, sweep_panel
from resalign.jobs.report import PARETO, SURVIVAL, WORDS, sweep_files
from resalign.report.attack_words import attack_markdown
from resalign.report.pareto_figure import pareto_figure, pareto_panel
from resalign.report.survival_figure import drawn_curves, survival_figure, survival_panels
from resalign.report.sweep_table import SweepResult, sweep_results
from resalign.report.sweep_text import seconds_sentence, sweep_sentences


@dataclass(frozen=True)
class ShownSweep:
    """A sweep on the page."""

    label: str
    title: str
    note: str
    sentences: tuple[str, ...]
    table: ResultTable
    panel: Panel
    seconds: str


@dataclass(frozen=True)
class AttackStudy:
    """The numbers of all of it.

    Attributes:
        table: From :func:`resalign.analysis.frames.long_table`, with every attack.
        sweeps: Of every sweep.
        survival: From :func:`resalign.analysis.survival.survival_table`, of every attack.
        curves: Those of its rows that are drawn.
        pareto: From :func:`resalign.analysis.pareto.pareto_table`; without rows where a metric is missing.
        weighed: The metrics of the Pareto front, by quantity.
    """

    table: pd.DataFrame
    sweeps: list[SweepResult]
    survival: pd.DataFrame
    curves: pd.DataFrame
    pareto: pd.DataFrame
    weighed: Mapping[str, str]

    @classmethod
    def of(cls, table: pd.DataFrame, measurements: Measurements, settings: ReportConfig) -> AttackStudy:
        """Computes everything.

        Args:
            table: From :func:`resalign.analysis.frames.long_table`, with every attack.
            measurements: With every attack and the sweeps.
            settings: Of intervals and thresholds.
        """
        main, weighed = measurements.main(), weighed_metrics(measurements)
        survival = survival_table(measurements, settings)
        return cls(
            table=table,
            sweeps=sweep_results(table, measurements, settings),
            survival=survival,
            curves=drawn_curves(survival, main, settings),
            pareto=pareto_table(table, main, settings, weighed),
            weighed=weighed,
        )

    def write(self, measurements: Measurements, settings: ReportConfig, output: Path) -> None:
        """Writes tables, and figures of those that have rows.

        Of each sweep ``tables/sweep-<label>.csv``, ``…-summary.csv`` (mean and worst over its values) and ``.tex``, and
        ``figures/sweep-<label>``, and ``attacks.md`` if there are some; ``tables/survival.csv`` and
        ``tables/pareto.csv`` and figures of these names.
        """
        main, figures = measurements.main(), output / "figures"
        for result in self.sweeps:
            name = f"sweep-{result.label}"
            values, summary, latex = (output / file for file in sweep_files(result.label))
            write_csv(result.rows, values)
            write_csv(result.summary, summary)
            latex.write_text(to_latex(result.layout), encoding="utf-8")
            drawing.save(sweep_figure(result.rows, measurements, settings, result.sweep), figures / name, settings)
        if self.sweeps:
            text = attack_markdown(self.table, self.sweeps, measurements, settings)
            (output / WORDS).write_text(text, encoding="utf-8")
        write_csv(self.survival, output / SURVIVAL)
        write_csv(self.pareto, output / PARETO)
        if not self.curves.empty:
            drawing.save(survival_figure(self.curves, main, settings), figures / "survival", settings)
        if not self.pareto.empty:
            drawing.save(pareto_figure(self.pareto, main, settings, self.weighed), figures / "pareto", settings)

    def shown_sweeps(self, measurements: Measurements, timings: Timings, settings: ReportConfig) -> list[ShownSweep]:
        """What the page shows of each sweep."""
        return [
            ShownSweep(
                label=result.label,
                title=result.sweep.title,
                note=result.sweep.note,
                sentences=sweep_sentences(result.rows, result.summary, measurements, settings, result.sweep),
                table=result.layout,
                panel=sweep_panel(result.label, result.rows, measurements, settings, result.sweep),
                seconds=seconds_sentence(timings.records, measurements, result.sweep),
            )
            for result in self.sweeps
        ]

    def panels(self, measurements: Measurements, settings: ReportConfig) -> dict[str, list[Panel]]:
        """The page's panels of survival and of the Pareto front."""
        pareto = [] if self.pareto.empty else [pareto_panel(self.pareto, measurements, settings, self.weighed)]
        return {"survival": survival_panels(self.curves, measurements, settings), "pareto": pareto}
