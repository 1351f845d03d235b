"""Writes the resilience card of every model but the base: what fine-tuning brings back, and a verdict on it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pandas as pd

from resalign.analysis.collect import collect, provenance
from resalign.analysis.frames import long_table, write_csv
from resalign.analysis.verdicts import judge
from resalign.cards.card import CardContext, write_card
from resalign.cards.described import describe
from resalign.config.report import ReportConfig
from resalign.report import overlap, scorer_check
from resalign.running.stage import parse_arguments, run_stage, running


def main() -> None:
    """Command line of the rule audit."""
    arguments = parse_arguments(__doc__ or "")
    job, output = arguments.job, arguments.output
    settings = ReportConfig.parse(job["report"], where="report")
    with running(arguments):
        found = collect(job)
        table = long_table(found.measurements, settings)
        config = json.dumps(job["config"], sort_keys=True)
        made = {**provenance(found.rows, job), "config_sha256": hashlib.sha256(config.encode()).hexdigest()}
        of_data = (*overlap.caveats(job["overlap"]), *scorer_check.caveats(job["scorer_check"]))
        judged = []
        for model, source in job["sources"].items():
            facts, caveats = describe(source, Path(job["base_folder"]))
            context = CardContext(
                concept=job["concept"],
                model=facts,
                measured=job["measured"],
                provenance=made,
                command=job["command"],
                caveats=(*caveats, *of_data),
                settings=settings,
            )
            for suffix, text in write_card(table, found.measurements, model, context).items():
                (output / f"card-{model}.{suffix}").write_text(text, encoding="utf-8")
            judged.append(judge(table, found.measurements, model, settings.most_after).assign(model=model))
        write_csv(pd.concat(judged, ignore_index=True), output / "verdicts.csv")


if __name__ == "__main__":
    run_stage(main)
