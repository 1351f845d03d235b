"""What the rules of the detector audit tell their scripts, and the files that they read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from resalign.config.detector_audit import DetectorAuditConfig, StandInConfig
from resalign.config.experiment import BASE, Member
from resalign.config.plan import RESULTS, Plan
from resalign.jobs import report
from resalign.jobs.job import as_json


def folder(plan: Plan) -> str:
    """Where sample and tables lie."""
    return f"{RESULTS}/{plan.experiment.config.name}/detector-audit"


def metric_modules(plan: Plan) -> list[str]:
    """The module of the audited metric."""
    return [f"resalign.metrics.{_metric(plan)[1].name}"]


def score_files(plan: Plan) -> list[str]:
    """The raw scores of all runs."""
    return [
        f"{row['folders']['score'].format(seed=seed)}/scores.parquet"
        for row in report.report_rows(plan)
        for seed in row["seeds"]
    ]


def label_files(plan: Plan) -> list[str]:
    """The labellers' files: those that the configuration names, or those that lie in the default place."""
    labels = _settings(plan).labels
    if isinstance(labels, StandInConfig):
        return []
    if labels is None:
        place = Path(RESULTS, plan.experiment.config.name, "detector-labels")
        return sorted(str(path) for path in place.glob("*.csv"))
    return [labels] if isinstance(labels, str) else list(labels)


def sample_job(plan: Plan) -> str:
    """What scripts/detector_sample.py needs."""
    settings, config = _settings(plan), plan.experiment.config
    return as_json(
        {
            **_scored(plan),
            "title": config.title,
            "concept": config.concept.name,
            "images": settings.images,
            "seed": settings.seed,
            "shown_pixels": settings.shown_pixels,
        }
    )


def audit_job(plan: Plan) -> str:
    """What scripts/detector_audit.py needs besides the sample."""
    labels, config = _settings(plan).labels, plan.experiment.config
    return as_json(
        {
            **_scored(plan),
            "title": config.title,
            "concept": config.concept.name,
            "sample": folder(plan),
            "labels": label_files(plan),
            "stand_in": labels.model_dump(mode="json") if isinstance(labels, StandInConfig) else None,
            "command": plan.command("detector_audit", tier=plan.tier),
            "report": config.report.model_dump(mode="json"),
        }
    )


def _scored(plan: Plan) -> dict[str, Any]:
    label, metric = _metric(plan)
    return {"metric": [label, metric.resolved()], "base": BASE, "rows": report.report_rows(plan)}


def _settings(plan: Plan) -> DetectorAuditConfig:
    return plan.experiment.config.detector_audit


def _metric(plan: Plan) -> tuple[str, Member]:
    label = _settings(plan).metric or plan.experiment.config.flags
    return label, plan.experiment.metrics[label]
