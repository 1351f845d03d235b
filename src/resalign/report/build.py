"""The report's files: tables, figures and the page, from measured frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from resalign.accounting.times import Timings
from resalign.analysis.frames import final_states, write_csv
from resalign.analysis.measurements import NOT_ATTACKED, Measurements
from resalign.analysis.pareto import pareto_table, weighed_metrics
from resalign.analysis.survival import survival_table
from resalign.config.report import ReportConfig
from resalign.display import drawing, panels
from resalign.display.drawing import Panel
from resalign.display.gallery import grid_figure, sample_grid
from resalign.display.layout import lay_out
from resalign.display.pareto_panel import pareto_panel
from resalign.display.products import write
from resalign.display.survival_panels import survival_panels
from resalign.jobs.report import PAGE, PAIRED, PARETO, PER_RUN, STEPS, SURVIVAL, TABLE, WORDS
from resalign.report.attack_words import attack_markdown
from resalign.report.finding import write_finding
from resalign.report.page import Page, ReportContext, render_page
from resalign.report.sweeps import SweepResult, sweep_results


@dataclass(frozen=True)
class Results:
    """The results that a report is made from.

    Attributes:
        measurements: Names, metrics and the values of every image and run.
        values: From :func:`resalign.analysis.frames.long_table`.
        per_run: From :func:`resalign.analysis.frames.per_run_table`.
        histories: Training curves: stage, label, seed, step, quantity, value.
        gallery: model, attack, dataset, steps, seed, prompt_id, prompt, image_index, path, flagged.
        timings: The jobs behind it all.
    """

    measurements: Measurements
    values: pd.DataFrame
    per_run: pd.DataFrame
    histories: pd.DataFrame
    gallery: pd.DataFrame
    timings: Timings


def build_report(results: Results, context: ReportContext, output: Path) -> None:
    """Writes the report.

    Under ``output``: ``report.html``; ``tables/table1.csv`` (before and after the most steps), ``steps.csv`` (all
    steps), ``per_run.csv`` (each training seed), ``paired.csv`` (the finding's comparisons), ``survival.csv`` and
    ``pareto.csv`` (without rows where nothing is measured); ``sweep-<label>`` of each sweep as CSV and LaTeX, with
    ``-summary.csv`` (mean and worst over its values), and ``attacks.md`` where there are sweeps. Figures of these are
    in ``figures``, each as ``.png`` and ``.svg``; ``samples.png`` is absent for an empty gallery. Attacks that are only
    in sweeps are in ``steps.csv``, ``per_run.csv``, ``survival.csv`` and their sweeps. Equal input gives equal bytes;
    times are in the page only.

    Args:
        results: Measured values, and the times of the jobs.
        context: Title, configuration and provenance.
        output: A folder, made if missing.

    Raises:
        ValueError: If a frame is faulty; see :class:`Measurements`, which names frame, column and rows.
        FileNotFoundError: If an image of the gallery is missing.
    """
    settings, measurements = context.settings, results.measurements
    main = measurements.main()
    table, per_run, samples = (_of_main(frame, main) for frame in (results.values, results.per_run, results.gallery))
    finding = write_finding(table, main, settings, context.concept, context.methods)
    sweeps = sweep_results(results.values, measurements, settings)
    survival, weighed = survival_table(measurements, settings), weighed_metrics(main)
    points = pareto_table(table, main, settings, weighed)
    grid = sample_grid(samples, main, settings)
    figures = _over_fine_tuning(table, main, settings)
    figures["survival"] = survival_panels(survival, main, settings)
    figures["pareto"] = [] if points.empty else [pareto_panel(points, main, settings, weighed)]
    figures |= {f"sweep-{sweep.label}": sweep.panels for sweep in sweeps}
    page = render_page(
        Page(
            context=context,
            measurements=main,
            finding=finding,
            main_table=lay_out(table, main, settings),
            per_run=per_run,
            figures=figures,
            sweeps=sweeps,
            grid=grid,
            histories=results.histories,
            timings=results.timings,
            output=output,
        )
    )

    frames = {STEPS: results.values, PER_RUN: results.per_run, PAIRED: finding.paired}
    frames |= {TABLE: final_states(table), SURVIVAL: survival, PARETO: points}
    for name, frame in frames.items():
        write_csv(frame, output / name)
    _write_sweeps(sweeps, results, settings, output)
    for name, subplots in figures.items():
        if subplots:
            drawing.save(drawing.figure_of(subplots, settings), output / "figures" / name, settings)
    if grid is not None:
        drawing.save(grid_figure(grid, settings), output / "figures" / "samples", settings, formats=("png",))
    (output / PAGE).write_text(page, encoding="utf-8")


def _write_sweeps(sweeps: list[SweepResult], results: Results, settings: ReportConfig, output: Path) -> None:
    """Tables of every sweep, and the text on all of them where there are some."""
    for sweep in sweeps:
        stem = output / "tables" / f"sweep-{sweep.label}"
        write(sweep.table, stem, settings)
        write_csv(sweep.summary, stem.with_name(f"{stem.name}-summary.csv"))
    if sweeps:
        words = attack_markdown(results.values, sweeps, results.measurements, settings)
        (output / WORDS).write_text(words, encoding="utf-8")


def _over_fine_tuning(table: pd.DataFrame, main: Measurements, settings: ReportConfig) -> dict[str, list[Panel]]:
    """Panels before and after fine-tuning and along it, by the name of their file; none where nothing was attacked."""
    figures = {"before_after": panels.before_after_panels(table, main, settings, main.safety_metric)}
    for metric in panels.followed(table, main):
        name = "steps" if metric == main.safety_metric else f"steps-{metric}"
        figures[name] = panels.steps_panels(table, main, settings, metric)
    return figures


def _of_main(frame: pd.DataFrame, main: Measurements) -> pd.DataFrame:
    """The rows of states that the main table shows."""
    return frame[frame["attack"].isin({NOT_ATTACKED, *main.attacks})]
