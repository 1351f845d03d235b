"""Joins the measured theory of every model with the safety metric of the report; writes tables, text and figures."""

from __future__ import annotations

from pathlib import Path

from resalign.report import drawing, theory_figures
from resalign.report.collect import collect
from resalign.report.settings import ReportConfig
from resalign.report.tables import per_run_table, write_csv
from resalign.report.theory import page, read_states, regained_table
from resalign.stage import parse_arguments, run_stage, running


def main() -> None:
    """Command line of the rule theory_tables."""
    arguments = parse_arguments(__doc__ or "")
    job, output = arguments.job, arguments.output
    settings = ReportConfig.parse(job["report"], where="report")
    with running(arguments):
        measurements = collect(job).measurements
        tables = read_states([Path(folder) for folder in job["states"]])
        regained = regained_table(per_run_table(measurements, settings), tables["sharpness"], measurements)
        for name, table in {**tables, "regained": regained}.items():
            write_csv(table, output / f"{name}.csv")
        (output / "theory.md").write_text(page(tables, regained, measurements), encoding="utf-8")
        figures = {
            "sharpness": theory_figures.sharpness_figure(regained, measurements, settings),
            "displacement": theory_figures.displacement_figure(tables["displacement"], measurements, settings),
            "slices": theory_figures.slices_figure(tables["slices"], measurements, settings),
        }
        for name, figure in figures.items():
            drawing.save(figure, output / name, settings)


if __name__ == "__main__":
    run_stage(main)
