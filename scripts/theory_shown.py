"""Writes the tables, texts and figures of the measured theory."""

from __future__ import annotations

import shutil
from pathlib import Path

from resalign.hashes import verified
from resalign.jobs.theory import LINEAR_MODEL, SHOWN, TheoryShownJob
from resalign.running.stage import parse_arguments, run_stage, running


def main() -> None:
    """Command line of the rule theory_shown."""
    from resalign.analysis.frames import per_run_table, write_csv
    from resalign.analysis.measured import MeasuredFolder
    from resalign.display import drawing
    from resalign.theory import linear_model_shown, proposition1, theory_figures
    from resalign.theory.theory_tables import read_table, regained_table

    arguments = parse_arguments(__doc__, TheoryShownJob)
    job, output = arguments.job, arguments.output
    with running(arguments, made=SHOWN):
        measurements = MeasuredFolder(Path(job.measured)).measurements()
        tables = {name: read_table(name, [Path(part) for part in parts]) for name, parts in job.tables.items()}
        per_run = per_run_table(measurements, job.report)
        tables["regained"] = regained_table(per_run, tables["sharpness"], measurements)
        for name, table in tables.items():
            write_csv(table, output / f"{name}.csv")
        linear_model = linear_model_shown.read(Path(job.linear_model))
        shutil.copyfile(verified(Path(job.linear_model)), output / LINEAR_MODEL)
        slices = tables.pop("slices")
        texts = {
            "theory.md": proposition1.page(**tables, measurements=measurements),
            "linear_model.md": linear_model_shown.page(linear_model, job.samples),
        }
        for name, text in texts.items():
            (output / name).write_text(text, encoding="utf-8")
        figures = {
            "sharpness": theory_figures.sharpness_figure(tables["regained"], measurements, job.report),
            "displacement": theory_figures.displacement_figure(tables["displacement"], measurements, job.report),
            "slices": theory_figures.slices_figure(slices, measurements, job.report),
            "linear_model": linear_model_shown.ratio_figure(linear_model, job.report),
        }
        for name, figure in figures.items():
            drawing.save(figure, output / name, job.report)


if __name__ == "__main__":
    run_stage(main)
