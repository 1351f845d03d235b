"""Applies metrics and thresholds to the raw scores of all runs, and writes the frames that exhibits are made from."""

from __future__ import annotations

from resalign.config.report import ReportConfig
from resalign.running.stage import parse_arguments, run_stage, running


def main() -> None:
    """Command line of the rule measure."""
    from resalign.analysis.collect import collect
    from resalign.exhibits._measured import write_measured

    arguments = parse_arguments(__doc__ or "")
    with running(arguments):
        settings = ReportConfig.parse(arguments.job["report"], where="report")
        write_measured(collect(arguments.job), arguments.job, settings, arguments.output)


if __name__ == "__main__":
    run_stage(main)
