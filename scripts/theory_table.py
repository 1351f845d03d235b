"""Writes one table of the measured theory: the parts of every measured model, one below the other."""

from __future__ import annotations

from pathlib import Path

from resalign.running.stage import parse_arguments, run_stage


def main() -> None:
    """Command line of the rule theory_table."""
    from resalign.analysis.frames import write_csv
    from resalign.theory.theory_tables import read_table

    arguments = parse_arguments(__doc__ or "")
    table = arguments.job["table"]
    write_csv(read_table(table, [Path(part) for part in arguments.job["parts"]]), arguments.output / f"{table}.csv")


if __name__ == "__main__":
    run_stage(main)
