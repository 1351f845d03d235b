"""Writes an unlearned model for others: a whole pipeline or a delta on its base, with a model card."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from resalign.analysis.collect import collect, provenance
from resalign.analysis.frames import long_table
from resalign.cards.card import CardContext, write_card
from resalign.cards.described import describe
from resalign.cards.model_card import Exported, write_model_card
from resalign.config.report import ReportConfig
from resalign.diffusion.export import write_delta, write_pipeline
from resalign.disclosure import values_without_places
from resalign.hashes import file_hash, verified
from resalign.report.overlap import caveats as overlap_caveats
from resalign.running.stage import parse_arguments, run_stage, running, write_json


def main() -> None:
    """Command line of the rule export."""
    arguments = parse_arguments(__doc__ or "")
    job, folder = arguments.job, arguments.output / "model"
    with running(arguments):
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier attempt
        base, weights = Path(job["base_folder"]), Path(job["weights"])
        if job["form"] == "whole":
            write_pipeline(base, weights, folder)
        else:
            write_delta(base, weights, folder, job["base_name"])
        write_cards(job, folder)
        write_json(folder / "experiment.json", values_without_places(job["config"]))


def write_cards(job: dict[str, Any], folder: Path) -> None:
    """README.md of the exported model, and the resilience card, which has every state that was measured."""
    settings = ReportConfig.parse(job["report"], where="report")
    found, model = collect(job), job["model"]
    config = json.dumps(job["config"], sort_keys=True)
    made = {**provenance(found.rows, job), "config_sha256": hashlib.sha256(config.encode()).hexdigest()}
    facts, caveats = describe(job["sources"][model], Path(job["base_folder"]))
    facts.pop("path", None)  # of a checkpoint on this machine
    shared = tuple(overlap_caveats(job["overlap"]))
    exported = Exported(
        **{key: job[key] for key in ("model", "seed", "form", "concept", "method", "base_name", "base_hub", "licence")},
        terms=tuple(job["terms"]),
        made=json.loads(verified(job["made"]).read_text(encoding="utf-8")),
        weights_sha256=file_hash(Path(job["weights"])),
        measured=job["measured"],
        provenance=made,
        caveats=(*caveats, *shared),
        command=job["command"],
        settings=settings,
    )
    context = CardContext(
        concept=job["concept"],
        model={**facts, "base": job["base_name"]},
        measured=job["measured"],
        provenance=made,
        command=job["command"],
        caveats=exported.caveats,
        settings=settings,
    )
    card = write_card(long_table(found.measurements, settings), found.measurements, model, context)
    (folder / "README.md").write_text(write_model_card(found.measurements, exported), encoding="utf-8")
    (folder / "resilience-card.md").write_text(card["md"], encoding="utf-8")


if __name__ == "__main__":
    run_stage(main)
