"""The page: one file that opens offline anywhere, with everything it shows inside it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import markupsafe
import pandas as pd

from resalign.report import curves, drawing, figures
from resalign.report.attack_study import AttackStudy
from resalign.report.finding import write_finding
from resalign.report.gallery import Grid
from resalign.report.measurements import NOT_ATTACKED, Measurements
from resalign.report.settings import ReportConfig
from resalign.report.table1 import ResultTable
from resalign.report.tables import number
from resalign.report.templates import template
from resalign.report.times import Timings, section

_PAGE_SCALE = 1.2  # of a sweep's figure, as wide as its values need: about that of the other panels on a wide page


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
        caveats: What a reader of the table must know of the data behind it, a paragraph each; optional.
    """

    title: str
    subtitle: str
    concept: str
    config_yaml: str
    provenance: Mapping[str, str]
    settings: ReportConfig
    notes: tuple[str, ...] = field(default=())
    caveats: tuple[str, ...] = ()


def render_page(
    table: pd.DataFrame,
    main_table: ResultTable,
    per_run: pd.DataFrame,
    grid: Grid | None,
    measurements: Measurements,
    histories: pd.DataFrame,
    timings: Timings,
    context: ReportContext,
    study: AttackStudy,
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
        study: Sweeps, survival, Pareto front.

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
        steps=[
            (
                measurements.metrics[metric],
                _inlined(figures.steps_panels(table, measurements, settings, metric), settings),
            )
            for metric in figures.followed(table, measurements)
        ],
        curves=_inlined(curves.curve_panels(histories, measurements, settings), settings),
        **_attack_study(study, measurements, timings, settings),
        grid=grid,
        per_run=_per_run_rows(per_run, measurements),
        times=section(timings, measurements),
        series=list(zip(settings.palette, settings.palette_dark, strict=True)),
        bands=len(measurements.models) <= settings.band_models,
        confidence=f"{100 * settings.confidence:g}\N{NO-BREAK SPACE}%",
    )


def _attack_study(
    study: AttackStudy, measurements: Measurements, timings: Timings, settings: ReportConfig
) -> dict[str, object]:
    """What the template is given of sweeps, survival and the Pareto front."""
    shown = study.panels(measurements, settings)
    sweeps = [
        {
            **vars(sweep),
            "sentences": _finding_html(sweep.sentences),
            "panels": _inlined([sweep.panel], settings),
            "inches": _PAGE_SCALE * sweep.panel.figure.get_figwidth(),
        }
        for sweep in study.shown_sweeps(measurements, timings, settings)
    ]
    return {
        "sweeps": sweeps,
        **{name: _inlined(panels, settings) for name, panels in shown.items()},
        "weighed": [measurements.metrics[metric] for metric in study.weighed.values()],
        "threshold": f"{100 * settings.resurgence_threshold:g}\N{NO-BREAK SPACE}%",
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
