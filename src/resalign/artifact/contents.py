"""What the rule artifact tells its script, and where the archive lies. Imports no torch: the Snakefile calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from resalign.artifact.layout import TARGET
from resalign.config import jobs
from resalign.config.plan import RESULTS, Plan
from resalign.paper import exhibit_jobs


def folder(plan: Plan) -> str:
    """Where the archive lies."""
    return f"{RESULTS}/{plan.experiment.config.name}/artifact"


def archive(plan: Plan) -> str:
    """The archive: a zip, of which every member is compressed on its own, so that damage is found where it is."""
    return f"{folder(plan)}/{plan.experiment.config.name}.zip"


def artifact_job(plan: Plan) -> str:
    """What scripts/artifact.py needs; what the report was told stands in the report's own record."""
    config = plan.experiment.config
    return jobs.as_json(
        {
            "name": config.name,
            "title": config.title,
            "tier": plan.tier,
            "command": plan.command(TARGET, tier=plan.tier),
            "result": f"{RESULTS}/{config.name}",
            "jobs": jobs.report_timings(plan),
            "references": list(plan.references),
            "assets": {name: _described(plan, name) for name in plan.assets},
            "modules": sorted({f"resalign.metrics.{metric.name}" for metric in plan.experiment.metrics.values()}),
            "exhibits": [_exhibit(plan, Path(file)) for file in exhibit_jobs.paper_files(plan)],
            "artifact": config.artifact.model_dump(mode="json"),
        }
    )


def _exhibit(plan: Plan, file: Path) -> dict[str, Any]:
    """One file of the paper's tables and figures, and what its script is told."""
    return {"exhibit": file.stem, "file": str(file), "job": json.loads(exhibit_jobs.exhibit_job(plan, file.stem))}


def _described(plan: Plan, name: str) -> dict[str, Any]:
    """An asset: where it comes from, under which licence and terms, what its content is determined by."""
    asset = plan.assets[name]
    origin = {"origin": asset.origin, "folder": asset.folder, "identity": asset.resolved}
    described = plan.experiment.config.assets.get(name)  # a prepared set has the licences of what it is made from
    if described is None or asset.origin == "digits":
        return {**origin, "licence": "made by this workflow"}
    said = {"terms": list(described.terms), "note": described.note}
    return {
        **origin,
        "licence": described.licence or "not stated",
        **{key: value for key, value in said.items() if value},
    }
