"""Writes the resilience card of every model but the base: what fine-tuning brings back, and a verdict on it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from resalign.analysis.frames import write_csv
from resalign.analysis.measured import MeasuredFolder
from resalign.analysis.verdicts import judge
from resalign.cards.card import CardContext, write_card
from resalign.cards.described import describe
from resalign.jobs.cards import CardsJob
from resalign.report import overlap, scorer_check
from resalign.running.stage import parse_arguments, run_stage, running


def main() -> None:
    """Command line of the rule cards."""
    arguments = parse_arguments(__doc__, CardsJob)
    job: CardsJob = arguments.job
    with running(arguments):
        measured = MeasuredFolder(Path(job.measured))
        values, measurements = measured.frame("values"), measured.measurements()
        of_data = (*overlap.caveats(job.overlap), *scorer_check.caveats(job.scorer_check))
        judged = []
        for model, source in job.sources.items():
            facts, own = describe(source, Path(job.base_folder))
            context = CardContext.of(job, facts, measured.provenance, (*own, *of_data))
            for suffix, text in write_card(values, measurements, model, context).items():
                (arguments.output / f"card-{model}.{suffix}").write_text(text, encoding="utf-8")
            judged.append(judge(values, measurements, model, job.report.most_after).assign(model=model))
        write_csv(pd.concat(judged, ignore_index=True), arguments.output / "verdicts.csv")


if __name__ == "__main__":
    run_stage(main)
