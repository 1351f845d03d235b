"""Writes an unlearned model for others: a whole pipeline or a delta on its base, with a model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from resalign.analysis.measured import MeasuredFolder
from resalign.cards.card import CardContext, write_card
from resalign.cards.described import describe
from resalign.cards.model_card import Exported, write_model_card
from resalign.diffusion.export import write_delta, write_pipeline
from resalign.disclosure import values_without_places
from resalign.hashes import file_hash, verified
from resalign.jobs.export import ExportJob
from resalign.report.overlap import caveats as overlap_caveats
from resalign.running.stage import parse_arguments, run_stage, running, write_json


def main() -> None:
    """Command line of the rule export."""
    arguments = parse_arguments(__doc__, ExportJob)
    job, folder = arguments.job, arguments.output / "model"
    with running(arguments):
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier attempt
        base, weights = Path(job.base_folder), Path(job.weights)
        if job.form == "whole":
            write_pipeline(base, weights, folder)
        else:
            write_delta(base, weights, folder, job.base_name)
        write_cards(job, folder)
        write_json(folder / "experiment.json", values_without_places(job.config))


def write_cards(job: ExportJob, folder: Path) -> None:
    """README.md of the exported model, and the resilience card, which has every state that was measured."""
    measured = MeasuredFolder(Path(job.measured))
    values, measurements = measured.frame("values"), measured.measurements()
    facts, caveats = describe(job.sources[job.model], Path(job.base_folder))
    facts.pop("path", None)  # of a checkpoint on this machine
    context = CardContext.of(
        job, {**facts, "base": job.base_name}, measured.provenance, (*caveats, *overlap_caveats(job.overlap))
    )
    exported = Exported(
        job=job,
        made=json.loads(verified(Path(job.made)).read_text(encoding="utf-8")),
        weights_sha256=file_hash(Path(job.weights)),
        context=context,
    )
    card = write_card(values, measurements, job.model, context)
    readme = write_model_card(values, measured.frame("per_run"), measurements, exported)
    (folder / "README.md").write_text(readme, encoding="utf-8")
    (folder / "resilience-card.md").write_text(card["md"], encoding="utf-8")


if __name__ == "__main__":
    run_stage(main)
