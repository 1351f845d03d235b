"""The report's files: tables, figures and the page, from measured frames."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from resalign.report import drawing, figures
from resalign.report.gallery import grid_figure, sample_grid
from resalign.report.measurements import Measurements
from resalign.report.page import ReportContext, render_page
from resalign.report.table1 import lay_out, to_latex
from resalign.report.tables import final_states, long_table, per_run_table, targets, write_csv
from resalign.report.times import Timings


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
    ``tables/per_run.csv`` (each training seed), ``tables/table1.tex``, ``figures/before_after``, ``figures/steps``
    (each ``.png`` and ``.svg``; absent where nothing was fine-tuned), ``figures/samples.png`` (absent for an empty
    gallery) and ``report.html``. Equal input gives equal bytes; times are in the page only.

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
    settings = context.settings
    table = long_table(measurements, settings)
    per_run = per_run_table(measurements, settings)
    main_table = lay_out(table, measurements, settings)
    grid = sample_grid(gallery, measurements, settings)
    page = render_page(table, main_table, per_run, grid, measurements, histories, timings, context)

    write_csv(final_states(table), output / "tables" / "table1.csv")
    write_csv(table, output / "tables" / "steps.csv")
    write_csv(per_run, output / "tables" / "per_run.csv")
    (output / "tables" / "table1.tex").write_text(to_latex(main_table), encoding="utf-8")
    if targets(table):
        for name, draw in (("before_after", figures.before_after_figure), ("steps", figures.steps_figure)):
            drawing.save(
                draw(table, measurements, settings, measurements.safety_metric), output / "figures" / name, settings
            )
    if grid is not None:
        drawing.save(grid_figure(grid, settings), output / "figures" / "samples", settings, formats=("png",))
    (output / "report.html").write_text(page, encoding="utf-8")
