"""The page: one file that opens offline anywhere, with everything it shows inside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import markupsafe
import pandas as pd

from resalign.accounting.times import Timings, duration, megabytes, section
from resalign.analysis.frames import interval_text, number
from resalign.analysis.measurements import NOT_ATTACKED, Measurements
from resalign.config.report import ReportConfig
from resalign.display import curves, drawing
from resalign.display import panels as figures
from resalign.display.gallery import Grid
from resalign.display.layout import ResultTable
from resalign.display.templates import template
from resalign.jobs import report as files
from resalign.jobs.report import PAIRED, TABLE, sweep_files
from resalign.report.attack_study import AttackStudy
from resalign.report.finding import Finding
from resalign.report.sources import Sources

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
        methods: Models of the method that the experiment is about; what they keep is said in any case.
        command: What a person types to make a file, up to the file's name.
        folder: The report's, as that command names it.
    """

    title: str
    subtitle: str
    concept: str
    config_yaml: str
    provenance: Mapping[str, str]
    settings: ReportConfig
    command: str
    folder: str
    notes: tuple[str, ...] = field(default=())
    caveats: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()


def render_page(
    table: pd.DataFrame,
    finding: Finding,
    main_table: ResultTable,
    per_run: pd.DataFrame,
    grid: Grid | None,
    measurements: Measurements,
    histories: pd.DataFrame,
    timings: Timings,
    context: ReportContext,
    study: AttackStudy,
    sources: Sources,
) -> str:
    """The page as HTML.

    Args:
        table: From :func:`resalign.analysis.frames.long_table`, with the intermediate steps.
        finding: From :func:`resalign.report.finding.write_finding`.
        main_table: From :func:`resalign.display.layout.lay_out`.
        per_run: From :func:`resalign.analysis.frames.per_run_table`; its index counts the rows of its file.
        grid: From :func:`resalign.display.gallery.sample_grid`.
        measurements: Names, titles and metrics, without the attacks that are in sweeps alone.
        histories: Training curves, see :func:`resalign.display.curves.curve_panels`.
        timings: The jobs behind it all.
        context: Everything else.
        study: Sweeps, survival, Pareto front.
        sources: Links and commands.

    Raises:
        ValueError: If a frame lacks a column, holds NaN, or has no safety metric.
    """
    settings = context.settings
    headline = measurements.safety_metric
    return template("report/page.html.j2").render(
        context=context,
        finding=[_linked(finding.result, sources, TABLE), _linked(finding.kept, sources, TABLE)],
        main_table=main_table,
        metrics=measurements.metrics,
        headline=measurements.metrics[headline],
        before_after=_inlined(figures.before_after_panels(table, measurements, settings, headline), settings),
        steps=_steps(table, measurements, settings),
        curves=_inlined(curves.curve_panels(histories, measurements, settings), settings),
        **_attack_study(study, measurements, timings, settings, sources),
        grid=grid,
        per_run=_per_run_rows(per_run, measurements),
        times=section(timings, measurements),
        duration=duration,
        megabytes=megabytes,
        sources=sources,
        files=files,
        series=list(zip(settings.palette, settings.palette_dark, strict=True)),
        bands=len(measurements.models) <= settings.band_models,
        confidence=f"{100 * settings.confidence:g}\N{NO-BREAK SPACE}%",
    )


def _steps(table: pd.DataFrame, measurements: Measurements, settings: ReportConfig) -> list[tuple[object, ...]]:
    """Of each safety metric over fine-tuning: what it is, its panels, its file's name."""
    return [
        (
            measurements.metrics[metric],
            _inlined(figures.steps_panels(table, measurements, settings, metric), settings),
            figures.steps_name(measurements, metric),
        )
        for metric in figures.followed(table, measurements)
    ]


def _attack_study(
    study: AttackStudy, measurements: Measurements, timings: Timings, settings: ReportConfig, sources: Sources
) -> dict[str, object]:
    """What the template is given of sweeps, survival and the Pareto front."""
    shown = study.panels(measurements, settings)
    sweeps = [
        {
            **vars(sweep),
            "sentences": _linked(sweep.sentences, sources, *sweep_files(sweep.label)[:2]),
            "files": sweep_files(sweep.label)[:2],
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


# Such as ``31.2 % [25.0, 38.1]``, ``12.0 points [8.0, 16.0]`` or ``difference [−50.0, +16.7]``.
_VALUE = re.compile(r"(?:(?P<value>[\d.,−]+(?:\s(?P<unit>%|points))?|difference) )?(?P<interval>\[[^\]]*\])")


def _linked(sentences: tuple[str, ...], sources: Sources, file: str, worst: str = "") -> markupsafe.Markup:
    """Sentences as HTML: values are links to their file, intervals are set back so that the values stand out.

    Args:
        sentences: From a finding or a sweep.
        sources: Links and commands.
        file: Of the values; differences are in :data:`resalign.jobs.report.PAIRED`.
        worst: Of those that follow ``at worst``.
    """

    def link(found: re.Match[str]) -> str:
        value, interval = found["value"], f'<span class="range">{found["interval"]}</span>'
        if value is None:
            return interval
        own = PAIRED if value == "difference" or found["unit"] == "points" else file
        if worst and found.string.endswith("at worst ", 0, found.start()):
            own = worst
        title = markupsafe.escape(sources.title(own))
        return f'<a class="number" href="{sources.link(own)}" title="{title}">{value}</a> {interval}'

    return markupsafe.Markup(_VALUE.sub(link, str(markupsafe.escape(" ".join(sentences)))))


def _inlined(panels: list[figures.Panel], settings: ReportConfig) -> list[dict[str, str]]:
    return [
        {
            "title": panel.title,
            "svg": drawing.inline_svg(panel.figure, name=panel.name, label=panel.label, settings=settings),
        }
        for panel in panels
    ]


def _per_run_rows(per_run: pd.DataFrame, measurements: Measurements) -> list[dict[str, object]]:
    """The rows of the table of single runs."""
    rows = []
    for place, row in zip(per_run.index, per_run.to_dict("records"), strict=True):
        info = measurements.metrics[str(row["metric"])]
        shown: dict[str, object] = {
            **{name: row[name] for name in ("steps", "seed", "n")},
            "place": place,
            "model": measurements.title(str(row["model"])),
            "target": "–" if row["attack"] == NOT_ATTACKED else measurements.target(str(row["attack"])),
            "metric": info.title,
            "value": number(float(row["value"]), info),
            "interval": interval_text(float(row["low"]), float(row["high"]), info) or "–",
        }
        rows.append(shown)
    return rows
