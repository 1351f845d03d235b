"""Applies metrics and thresholds to the raw scores of all runs, and writes the frames that results are made from."""

from __future__ import annotations

from resalign.jobs.measure import MeasureJob
from resalign.running.stage import parse_arguments, run_stage, running


def main() -> None:
    """Command line of the rule measure."""
    from resalign.analysis.collect import collect
    from resalign.analysis.measured import write_measured

    arguments = parse_arguments(__doc__, MeasureJob)
    with running(arguments):
        write_measured(collect(arguments.job), arguments.job, arguments.output)


if __name__ == "__main__":
    run_stage(main)
