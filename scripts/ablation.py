"""Measures every variant of an ablation: metrics and thresholds applied to its runs' raw scores and records."""

from __future__ import annotations

import json

from resalign.files import whole
from resalign.jobs.ablation import AblationJob
from resalign.running.stage import parse_arguments, run_stage, running


def main() -> None:
    """Command line of the rule ablation_measured."""
    from resalign.ablations.measured import described, measured
    from resalign.analysis.frames import write_csv

    arguments = parse_arguments(__doc__, AblationJob)
    with running(arguments, made=("values.csv", "per_run.csv", "variants.json")):
        values, runs = measured(arguments.job)
        write_csv(values, arguments.output / "values.csv")
        write_csv(runs, arguments.output / "per_run.csv")
        variants = described(arguments.job, list(dict.fromkeys(values["variant"])))
        with whole(arguments.output / "variants.json") as part:  # in the order of the tables
            part.write_text(json.dumps(variants, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_stage(main)
