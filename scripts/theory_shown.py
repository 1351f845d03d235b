"""Writes the text of the measured theory, or draws one of its figures in one format."""

from __future__ import annotations

from pathlib import Path

from resalign.config.report import ReportConfig
from resalign.running.stage import parse_arguments, run_stage


def main() -> None:
    """Command line of the rule theory_shown."""
    from resalign.analysis.collect import load_metrics, named
    from resalign.display import drawing
    from resalign.theory import theory_figures
    from resalign.theory.proposition1 import page
    from resalign.theory.theory_tables import read_table

    arguments = parse_arguments(__doc__ or "")
    job, output = arguments.job, arguments.output / arguments.job["file"]
    settings = ReportConfig.parse(job["report"], where="report")
    tables = {name: read_table(name, [Path(part) for part in parts]) for name, parts in job["tables"].items()}
    names = named(job, load_metrics(job))
    if output.suffix == ".md":
        output.write_text(page(**tables, measurements=names), encoding="utf-8")
    else:
        [table] = tables.values()
        # Each draws the one table that theory_jobs.READS has for it.
        figures = {
            "sharpness": theory_figures.sharpness_figure,
            "displacement": theory_figures.displacement_figure,
            "slices": theory_figures.slices_figure,
        }
        figure = figures[output.stem](table, names, settings)
        drawing.save(figure, output.with_suffix(""), settings, formats=(output.suffix.removeprefix("."),))


if __name__ == "__main__":
    run_stage(main)
