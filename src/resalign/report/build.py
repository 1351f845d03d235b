"""The report's files: tables, figures and the page, from measured frames."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from resalign.accounting.times import Timings
from resalign.analysis.frames import final_states, long_table, per_run_table, targets, write_csv
from resalign.analysis.measurements import NOT_ATTACKED, Measurements
from resalign.display import drawing, panels
from resalign.display.gallery import grid_figure, sample_grid
from resalign.display.latex import to_latex
from resalign.display.layout import lay_out
from resalign.jobs.report import LATEX, PAGE, PAIRED, PER_RUN, STEPS, TABLE, files
from resalign.report.attack_study import AttackStudy
from resalign.report.finding import write_finding
from resalign.report.page import ReportContext, render_page
from resalign.report.sources import Sources


def build_report(
    measurements: Measurements,
    histories: pd.DataFrame,
    timings: Timings,
    gallery: pd.DataFrame,
    context: ReportContext,
    output: Path,
) -> None:
    """Writes the report.

    Under ``output``: ``tables/table1.csv`` (before and after the most steps), ``tables/steps.csv`` (all steps),
    ``tables/per_run.csv`` (each training seed), ``tables/paired.csv`` (the finding's comparisons),
    ``tables/table1.tex``, ``figures/before_after``, ``figures/steps`` and
    ``figures/steps-<metric>`` for further safety metrics along the way (each ``.png`` and ``.svg``; absent where
    nothing was fine-tuned), ``figures/samples.png`` (absent for an empty gallery) and ``report.html``. Then what
    :class:`resalign.report.attack_study.AttackStudy` writes of sweeps, survival and the Pareto front. Attacks that are
    in sweeps alone are in ``steps.csv``, ``per_run.csv``, ``survival.csv`` and their sweeps. Equal input gives equal
    bytes; times are in the page only.

    Args:
        measurements: All measured values.
        histories: Training curves: stage, label, seed, step, quantity, value.
        timings: The jobs behind it all.
        gallery: model, attack, dataset, steps, seed, prompt_id, prompt, image_index, path, flagged.
        context: Title, configuration and provenance.
        output: A folder, made if missing.

    Raises:
        ValueError: If a frame is faulty; see :class:`Measurements`, which names frame, column and rows.
        FileNotFoundError: If an image of the gallery is missing.
    """
    settings, main = context.settings, measurements.main()
    whole, runs = long_table(measurements, settings), per_run_table(measurements, settings)
    table, per_run, samples = (_of_main(frame, main) for frame in (whole, runs, gallery))
    main_table = lay_out(table, main, settings)
    grid = sample_grid(samples, main, settings)
    study = AttackStudy.of(whole, measurements, settings)
    finding = write_finding(table, main, settings, context.concept, context.methods)
    sources = Sources(context.command, context.folder, output, frozenset(files(measurements.sweeps)))
    page = render_page(table, finding, main_table, per_run, grid, main, histories, timings, context, study, sources)

    write_csv(final_states(table), output / TABLE)
    write_csv(whole, output / STEPS)
    write_csv(runs, output / PER_RUN)
    write_csv(finding.paired, output / PAIRED)
    (output / LATEX).write_text(to_latex(main_table), encoding="utf-8")
    study.write(measurements, settings, output)
    if targets(table):
        drawn = {"before_after": panels.before_after_figure(table, main, settings, main.safety_metric)}
        for metric in panels.followed(table, main):
            drawn[panels.steps_name(main, metric)] = panels.steps_figure(table, main, settings, metric)
        for name, figure in drawn.items():
            drawing.save(figure, output / "figures" / name, settings)
    if grid is not None:
        drawing.save(grid_figure(grid, settings), output / "figures" / "samples", settings, formats=("png",))
    (output / PAGE).write_text(page, encoding="utf-8")


def _of_main(frame: pd.DataFrame, main: Measurements) -> pd.DataFrame:
    """The rows of states that the main table shows; their index still counts the rows of the whole."""
    return frame[frame["attack"].isin({NOT_ATTACKED, *main.attacks})]
