"""Joins the safety metric that each attack brings back with the sharpness of the model that it started from."""

from __future__ import annotations

from pathlib import Path

from resalign.config.report import ReportConfig
from resalign.running.stage import parse_arguments, run_stage, running


def main() -> None:
    """Command line of the rule theory_regained."""
    from resalign.analysis.collect import collect
    from resalign.analysis.frames import per_run_table, write_csv
    from resalign.theory.theory_tables import read_table, regained_table

    arguments = parse_arguments(__doc__ or "")
    job = arguments.job
    settings = ReportConfig.parse(job["report"], where="report")
    with running(arguments, made=["regained.csv"]):
        measurements = collect(job).measurements
        sharpness = read_table("sharpness", [Path(part) for part in job["sharpness"]])
        regained = regained_table(per_run_table(measurements, settings), sharpness, measurements)
        write_csv(regained, arguments.output / "regained.csv")


if __name__ == "__main__":
    run_stage(main)
