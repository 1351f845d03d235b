"""Holds Proposition 5.1 of the resurgence paper against its linear model; writes a table, conclusions and a figure."""

from __future__ import annotations

from dataclasses import asdict, replace

from resalign.config.theory import LinearModelConfig
from resalign.objectives.resurgence_grid import grid
from resalign.report import drawing
from resalign.report.linear_model import page, ratio_figure
from resalign.report.settings import ReportConfig
from resalign.stage import parse_arguments, run_stage, running


def main() -> None:
    """Command line of the rule linear_model."""
    import pandas as pd

    arguments = parse_arguments(__doc__ or "")
    job, output = arguments.job, arguments.output
    config = LinearModelConfig.parse(job["linear_model"], where="theory.linear_model")
    settings = ReportConfig.parse(job["report"], where="report")
    # The tables of the same folder are another job's, and have their own record there.
    with running(replace(arguments, output=output / "linear-model")):
        frame = pd.DataFrame([asdict(row) for row in grid(config)])
        frame.to_csv(output / "linear_model.csv", index=False, float_format="%.12g")
        (output / "linear_model.md").write_text(page(frame, config.samples), encoding="utf-8")
        drawing.save(ratio_figure(frame, settings), output / "linear_model", settings)


if __name__ == "__main__":
    run_stage(main)
