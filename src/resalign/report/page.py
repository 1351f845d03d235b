"""The page: one file that opens offline anywhere, with everything it shows inside it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from resalign.accounting.times import Timings, duration, megabytes, section
from resalign.analysis.frames import interval_text, number
from resalign.analysis.measurements import NOT_ATTACKED, Measurements
from resalign.analysis.pareto import weighed_metrics
from resalign.config.report import ReportConfig
from resalign.display import curves, drawing
from resalign.display.drawing import Panel
from resalign.display.gallery import Grid
from resalign.display.layout import ResultTable, split
from resalign.display.templates import template
from resalign.jobs import report as files
from resalign.report.finding import Finding
from resalign.report.sweep_text import seconds_sentence, sweep_sentences
from resalign.report.sweeps import SweepResult


@dataclass(frozen=True, kw_only=True)
class ReportContext:
    """The content of the page besides the numbers.

    Attributes:
        title: The page's heading.
        subtitle: One line below it.
        concept: What a model should no longer show, as it reads in ``shows … in 12 % of its images``.
        config_yaml: The resolved configuration.
        provenance: Versions, source hash, seeds, host: name to value, in the order shown.
        settings: How results are summarised and shown.
        command: What a person types to make a file, up to the file's name.
        folder: The report's, as that command names it.
        caveats: What a reader of the table must know of the data behind it, a paragraph each; optional.
        definitions: Attacks and prompt lists: how each is shown, and a sentence that defines it.
        methods: Models of the method that the experiment is about; the finding always states what they keep.
    """

    title: str
    subtitle: str
    concept: str
    config_yaml: str
    provenance: Mapping[str, str]
    settings: ReportConfig
    command: str
    folder: str
    caveats: tuple[str, ...] = ()
    definitions: tuple[tuple[str, str], ...] = ()
    methods: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything that the page shows.

    Attributes:
        context: Title, configuration and provenance.
        measurements: Names, titles and metrics, without the attacks that are only in sweeps.
        finding: The first sentences.
        main_table: From :func:`resalign.display.layout.lay_out`.
        per_run: From :func:`resalign.analysis.frames.per_run_table`.
        figures: Panels by the name of their file: ``before_after``, ``steps``, ``steps-<metric>``, ``survival``,
            ``pareto``, ``sweep-<label>``.
        sweeps: From :func:`resalign.report.sweeps.sweep_results`.
        grid: From :func:`resalign.display.gallery.sample_grid`.
        histories: Training curves, see :func:`resalign.display.curves.curve_panels`.
        timings: The jobs behind it all.
        output: Folder of the page.
    """

    context: ReportContext
    measurements: Measurements
    finding: Finding
    main_table: ResultTable
    per_run: pd.DataFrame
    figures: Mapping[str, Sequence[Panel]]
    sweeps: Sequence[SweepResult]
    grid: Grid | None
    histories: pd.DataFrame
    timings: Timings
    output: Path


def render_page(page: Page) -> str:
    """The page as HTML.

    Raises:
        ValueError: If a frame lacks a column, holds NaN, or has no safety metric.
    """
    context, measurements, settings = page.context, page.measurements, page.context.settings
    figures = {name: drawing.inlined(panels, settings, name) for name, panels in page.figures.items()}
    training = curves.curve_panels(page.histories, measurements, settings)
    main_table, other_metrics = split(page.main_table, measurements)
    steps = {name: measurements.safety_metric for name in figures if name == "steps"}
    steps |= {name: name.removeprefix("steps-") for name in figures if name.startswith("steps-")}
    return template("report/page.html.j2").render(
        context=context,
        prompts_of=lambda info: measurements.title(info.prompt_set),
        headline_sentence=page.finding.headline,
        finding=[" ".join(sentences) for sentences in (page.finding.result, page.finding.kept)],
        main_table=main_table,
        other_metrics=other_metrics,
        caption=page.main_table.caption,
        definitions=context.definitions,
        metrics=measurements.metrics,
        headline=measurements.metrics[measurements.safety_metric],
        figures=figures,
        steps=[(name, measurements.metrics[metric]) for name, metric in steps.items()],
        sweeps=[_sweep(result, page, settings) for result in page.sweeps],
        weighed=[measurements.metrics[metric] for metric in weighed_metrics(measurements).values()],
        threshold=f"{100 * settings.resurgence_threshold:g}\N{NO-BREAK SPACE}%",
        curves=drawing.inlined(training, settings, "curve"),
        grid=page.grid,
        per_run=_per_run_rows(page.per_run, measurements),
        times=section(page.timings, measurements),
        duration=duration,
        megabytes=megabytes,
        relative=lambda path: quote(Path(os.path.relpath(path, page.output)).as_posix()),
        files=files,
        series=list(zip(settings.palette, settings.palette_dark, strict=True)),
        bands=len(measurements.models) <= settings.band_models,
        confidence=f"{100 * settings.confidence:g}\N{NO-BREAK SPACE}%",
    )


def _sweep(result: SweepResult, page: Page, settings: ReportConfig) -> dict[str, object]:
    """A sweep for the template."""
    sentences = sweep_sentences(result.rows, result.summary, page.measurements, settings, result.sweep)
    return {
        "label": result.label,
        "title": result.sweep.title,
        "note": result.sweep.note,
        "sentences": " ".join(sentences),
        "table": result.table.layout,
        "head": result.table.head,
        "seconds": seconds_sentence(page.timings.records, page.measurements, result.sweep),
        "files": [file for file in files.sweep_files(result.label) if file.endswith(".csv")],
    }


def _per_run_rows(per_run: pd.DataFrame, measurements: Measurements) -> list[dict[str, object]]:
    """The rows of the table of single runs."""
    rows = []
    for row in per_run.to_dict("records"):
        info = measurements.metrics[str(row["metric"])]
        cells: dict[str, object] = {
            **{name: row[name] for name in ("steps", "seed", "n")},
            "model": measurements.title(str(row["model"])),
            "target": "–" if row["attack"] == NOT_ATTACKED else measurements.target(str(row["attack"])),
            "metric": info.title,
            "value": number(float(row["value"]), info),
            "interval": interval_text(float(row["low"]), float(row["high"]), info) or "–",
        }
        rows.append(cells)
    return rows
