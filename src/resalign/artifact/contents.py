"""What the rule artifact tells its script, and where the archive lies. Imports no torch: the Snakefile calls it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from resalign.artifact.layout import TARGET
from resalign.config import jobs
from resalign.config.plan import RESULTS, Plan


def folder(plan: Plan) -> str:
    """Where the archive lies."""
    return f"{RESULTS}/{plan.experiment.config.name}/artifact"


def archive(plan: Plan) -> str:
    """The archive: a zip, of which every member is compressed on its own, so that damage is found where it is."""
    return f"{folder(plan)}/{plan.experiment.config.name}.zip"


def artifact_job(plan: Plan, exhibits: Sequence[Mapping[str, Any]] = ()) -> str:
    """What scripts/artifact.py needs; what the report was told stands in the report's own record.

    Args:
        plan: The experiment.
        exhibits: Of the paper's exhibits that are packed ``exhibit`` (its name), ``file`` and ``job`` (of its script).
    """
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
            "exhibits": list(exhibits),
            "artifact": config.artifact.model_dump(mode="json"),
        }
    )


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
