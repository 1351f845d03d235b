"""The jobs of the detector audit, and where its files lie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from resalign.config.detector_audit import StandInConfig
from resalign.config.report import ReportConfig
from resalign.jobs import measure
from resalign.jobs.inputs import Input
from resalign.jobs.job import Job
from resalign.jobs.measure import Scored

if TYPE_CHECKING:
    from resalign.config.plan import Plan


class AuditedJob(Job):
    """The part that both jobs share."""

    title: str
    concept: str
    metric: tuple[str, dict[str, Any]]  # label of the audited metric, and its name and settings
    base: str  # the model before unlearning
    rows: tuple[Scored, ...]  # every model, fine-tuned or not: raw scores lead to images


class DetectorSampleJob(AuditedJob):
    """A job of scripts/detector_sample.py; see :class:`resalign.config.detector_audit.DetectorAuditConfig`."""

    images: int
    seed: int
    shown_pixels: int

    @classmethod
    def of(cls, plan: Plan) -> DetectorSampleJob:
        """The job of an experiment."""
        settings = plan.experiment.config.detector_audit
        return cls(**_audited(plan), images=settings.images, seed=settings.seed, shown_pixels=settings.shown_pixels)


class DetectorAuditJob(AuditedJob):
    """A job of scripts/detector_audit.py."""

    sample: Input
    labels: tuple[Input, ...]  # the labellers' files
    stand_in: StandInConfig | None
    command: str  # makes the tables again
    report: ReportConfig

    @classmethod
    def of(cls, plan: Plan) -> DetectorAuditJob:
        """The job of an experiment."""
        labels, place = plan.experiment.config.detector_audit.labels, folder(plan)
        return cls(
            **_audited(plan),
            sample=Input(place, [f"{place}/key.csv", f"{place}/label.html"]),
            labels=tuple(map(Input.file, label_files(plan))),
            stand_in=labels if isinstance(labels, StandInConfig) else None,
            command=plan.command("detector_audit", tier=plan.tier),
            report=plan.experiment.config.report,
        )


def folder(plan: Plan) -> str:
    """Where sample and tables lie."""
    return f"results/{plan.experiment.config.name}/detector-audit"


def metric_modules(plan: Plan) -> list[str]:
    """The module of the audited metric."""
    return [f"resalign.metrics.{plan.experiment.metrics[_label(plan)].name}"]


def score_files(plan: Plan) -> list[str]:
    """The raw scores of all runs."""
    return [
        f"{row.folders['score'].format(seed=seed)}/scores.parquet" for row in measure.rows(plan) for seed in row.seeds
    ]


def label_files(plan: Plan) -> list[str]:
    """The labellers' files: those that the configuration names, or those in the default place."""
    labels = plan.experiment.config.detector_audit.labels
    if isinstance(labels, StandInConfig):
        return []
    if labels is None:
        place = Path("results", plan.experiment.config.name, "detector-labels")
        return sorted(str(path) for path in place.glob("*.csv"))
    return [labels] if isinstance(labels, str) else list(labels)


def _audited(plan: Plan) -> dict[str, Any]:
    experiment, label = plan.experiment, _label(plan)
    return {
        "title": experiment.config.title,
        "concept": experiment.config.concept.name,
        "metric": (label, experiment.metrics[label].resolved()),
        "base": experiment.models[0],
        "rows": measure.rows(plan),
    }


def _label(plan: Plan) -> str:
    config = plan.experiment.config
    return config.detector_audit.metric or config.flagging_metric
