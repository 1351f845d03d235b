"""The page: one file that opens offline anywhere, with everything it shows inside it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import markupsafe
import pandas as pd

from resalign.report import curves, drawing, figures
from resalign.report.finding import write_finding
from resalign.report.gallery import Grid
from resalign.report.measurements import NOT_ATTACKED, Measurements
from resalign.report.settings import ReportConfig
from resalign.report.sweep_figure import sweep_panel
from resalign.report.sweep_text import seconds_sentence, sweep_sentences
from resalign.report.sweeps import SweepResult
from resalign.report.table1 import ResultTable
from resalign.report.tables import number
from resalign.report.templates import template
from resalign.report.times import Timings, section


@dataclass(frozen=True, kw_only=True)
class ReportContext:
    """What the page says besides the numbers.

    Attributes:
        title: The page's heading.
        subtitle: One line below it.
        concept: What a model should no longer show, as it reads in ``shows … in 12 % of its images``.
        config_yaml: The resolved configuration.
        provenance: Versions, source hash, seeds, host: name to value, in the order shown.
        settings: How results are summarised and shown.
        notes: Paragraphs on the experiment for the reader, in order; optional.
    """

    title: str
    subtitle: str
    concept: str
    config_yaml: str
    provenance: Mapping[str, str]
    settings: ReportConfig
    notes: tuple[str, ...] = field(default=())


def render_page(
    table: pd.DataFrame,
    main_table: ResultTable,
    per_run: pd.DataFrame,
    grid: Grid | None,
    measurements: Measurements,
    histories: pd.DataFrame,
    timings: Timings,
    context: ReportContext,
    sweeps: Sequence[SweepResult] = (),
) -> str:
    """The page as HTML.

    Args:
        table: From :func:`resalign.report.tables.long_table`, with the intermediate steps.
        main_table: From :func:`resalign.report.table1.lay_out`.
        per_run: From :func:`resalign.report.tables.per_run_table`.
        grid: From :func:`resalign.report.gallery.sample_grid`.
        measurements: Names, titles and metrics, without the attacks that are in sweeps alone.
        histories: Training curves, see :func:`resalign.report.curves.curve_panels`.
        timings: The jobs behind it all.
        context: Everything else.
        sweeps: From :func:`resalign.report.sweeps.sweep_results`.

    Raises:
        ValueError: If a frame lacks a column, holds NaN, or has no safety metric.
    """
    settings = context.settings
    headline = measurements.safety_metric
    finding = write_finding(table, measurements, settings, context.concept)
    return template("page.html.j2").render(
        context=context,
        finding=[_finding_html(finding.result), _finding_html(finding.kept)],
        main_table=main_table,
        metrics=measurements.metrics,
        headline=measurements.metrics[headline],
        before_after=_inlined(figures.before_after_panels(table, measurements, settings, headline), settings),
        steps=_inlined(figures.steps_panels(table, measurements, settings, headline), settings),
        curves=_inlined(curves.curve_panels(histories, measurements, settings), settings),
        sweeps=[_sweep(result, measurements, timings, settings) for result in sweeps],
        grid=grid,
        per_run=_per_run_rows(per_run, measurements),
        times=section(timings, measurements),
        series=list(zip(settings.palette, settings.palette_dark, strict=True)),
        bands=len(measurements.models) <= settings.band_models,
        confidence=f"{100 * settings.confidence:g}\N{NO-BREAK SPACE}%",
    )


def _sweep(result: SweepResult, measurements: Measurements, timings: Timings, settings: ReportConfig) -> dict[str, Any]:
    """What the page shows of a sweep."""
    sentences = sweep_sentences(result.rows, result.summary, measurements, settings, result.sweep)
    panel = sweep_panel(result.label, result.rows, measurements, settings, result.sweep)
    return {
        "title": result.sweep.title,
        "note": result.sweep.note,
        "sentences": _finding_html(sentences),
        "table": result.layout,
        "panels": _inlined([panel], settings),
        "seconds": seconds_sentence(timings.records, measurements, result.sweep),
    }


def _finding_html(sentences: tuple[str, ...]) -> markupsafe.Markup:
    """Sentences as HTML, their intervals set back so that the values stand out."""
    text = str(markupsafe.escape(" ".join(sentences)))
    return markupsafe.Markup(re.sub(r"(\[[^\]]*\])", r'<span class="range">\1</span>', text))


def _inlined(panels: list[figures.Panel], settings: ReportConfig) -> list[dict[str, str]]:
    return [
        {
            "title": panel.title,
            "svg": drawing.inline_svg(panel.figure, name=panel.name, label=panel.label, settings=settings),
        }
        for panel in panels
    ]


def _per_run_rows(per_run: pd.DataFrame, measurements: Measurements) -> list[list[str]]:
    """The cells of the table of single runs."""
    rows = []
    for row in per_run.to_dict("records"):
        info = measurements.metrics[str(row["metric"])]
        low, high = float(row["low"]), float(row["high"])
        interval = f"[{number(low, info)}, {number(high, info)}]" if not math.isnan(low) else "–"
        state = "–" if row["attack"] == NOT_ATTACKED else measurements.target(str(row["attack"]))
        rows.append(
            [
                measurements.title(str(row["model"])),
                state,
                f"{row['steps']:,}",
                str(row["seed"]),
                info.title,
                number(float(row["value"]), info),
                interval,
                f"{row['n']:,}",
            ]
        )
    return rows
