"""Compares the searches of an experiment: curves, the best settings of each, a configuration that has them."""

from __future__ import annotations

from pathlib import Path

from resalign.jobs.tune import SHOWN, TunedJob
from resalign.running.stage import parse_arguments, run_stage, running


def main() -> None:
    """Command line of the rule tune."""
    import yaml

    from resalign.analysis.frames import read_csv, write_csv
    from resalign.display import drawing
    from resalign.tuning import shown

    arguments = parse_arguments(__doc__, TunedJob)
    job, output = arguments.job, arguments.output
    with running(arguments, inputs=job.paths(), made=SHOWN):
        trials = {(name, seed): read_csv(Path(folder) / "trials.csv") for name, seed, folder in job.searches}
        curves, best = shown.curves(trials, job.tuning.budget), shown.best(trials, job.tuning.fields)
        write_csv(curves, output / "curves.csv")
        write_csv(best, output / "best.csv")
        text = shown.text(best, job.tuning, job.report.confidence)
        (output / "tuning.md").write_text(text, encoding="utf-8")
        tuned = shown.configuration(best, job)
        (output / "tuned.yaml").write_text(yaml.safe_dump(tuned, sort_keys=False, width=120), encoding="utf-8")
        drawing.save(shown.figure(curves, job.report), output / "curves", job.report)


if __name__ == "__main__":
    run_stage(main)
