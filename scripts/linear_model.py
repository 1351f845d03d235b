"""Holds Proposition 5.1 of the resurgence paper against its linear model; writes the table."""

from __future__ import annotations

from dataclasses import asdict

from resalign.jobs.theory import LINEAR_MODEL, LinearModelJob
from resalign.running.stage import parse_arguments, run_stage, running
from resalign.theory.linear_model_grid import grid


def main() -> None:
    """Command line of the rule linear_model."""
    import pandas as pd

    arguments = parse_arguments(__doc__, LinearModelJob)
    with running(arguments):
        frame = pd.DataFrame([asdict(row) for row in grid(arguments.job.linear_model)])
        frame.to_csv(arguments.output / LINEAR_MODEL, index=False, float_format="%.12g")


if __name__ == "__main__":
    run_stage(main)
