"""Writes the table and the figure of an ablation from its measured values."""

from __future__ import annotations

from pathlib import Path

from resalign.jobs.ablation import AblationShownJob
from resalign.running.stage import parse_arguments, run_stage


def main() -> None:
    """Command line of the rule ablation_shown."""
    from resalign.ablations.shown import shown
    from resalign.analysis.frames import read_csv
    from resalign.display import drawing
    from resalign.display.products import write

    arguments = parse_arguments(__doc__, AblationShownJob)
    job, output = arguments.job, arguments.output
    table, panels = shown(job, read_csv(Path(job.values)))
    write(table, output / "table", job.report, label=job.ablation)
    drawing.save(drawing.figure_of(panels, job.report), output / "figure", job.report)


if __name__ == "__main__":
    run_stage(main)
