"""Applies metrics and thresholds to the raw scores of all runs, and writes the frames that exhibits are made from."""

from __future__ import annotations

from resalign.report.settings import ReportConfig
from resalign.stage import parse_arguments, run_stage, running


def main() -> None:
    """Command line of the rule measure."""
    from resalign.paper.measured import write_measured
    from resalign.report.collect import collect

    arguments = parse_arguments(__doc__ or "")
    with running(arguments):
        settings = ReportConfig.parse(arguments.job["report"], where="report")
        write_measured(collect(arguments.job), arguments.job, settings, arguments.output)


if __name__ == "__main__":
    run_stage(main)
