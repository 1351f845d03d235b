"""What the study's rules tell their script, and the files that it reads."""

from __future__ import annotations

from typing import Any

from resalign.config.closure import import_closure
from resalign.config.experiment import BASE
from resalign.config.plan import Plan
from resalign.config.strict import ConfigError
from resalign.config.study import SAFETY, UTILITY, SelectionConfig, StudyConfig
from resalign.jobs import report
from resalign.jobs.job import as_json


def module_code(module: str) -> list[str]:
    """Code inputs of a rule that runs a module of the package."""
    return [str(path) for path in import_closure(module)]


def study_metrics(plan: Plan) -> list[str]:
    """Modules of the metrics that are counted."""
    return sorted(f"resalign.metrics.{metric.name}" for metric in _metrics(plan).values())


def study_files(plan: Plan) -> list[str]:
    """Every file that is counted or summed: scores, the attacks' records, and the times of all jobs."""
    return [
        name for name in report.report_files(plan) if name not in {f"{of}/scores.parquet" for of in plan.references}
    ]


def study_job(plan: Plan) -> str:
    """What scripts/study.py needs."""
    experiment = plan.experiment
    return as_json(
        {
            "name": experiment.config.name,
            "command": plan.command(_target(plan)),
            "config": experiment.resolved(),
            "tier": plan.tier,
            "seeds": experiment.tier.training_seeds,
            "base": BASE,
            "models": experiment.models,
            "attacks": list(experiment.attacks),
            "metrics": {label: metric.resolved() for label, metric in _metrics(plan).items()},
            "rows": report.report_rows(plan),
            "timings": report.report_timings(plan),
            "study": StudyConfig().model_dump(mode="json"),
            "selection": SelectionConfig().model_dump(mode="json"),
        }
    )


def checked(plan: Plan) -> Plan:
    """The plan, if it has the models that the claims name.

    Raises:
        ConfigError: Naming those that are missing.
    """
    missing = missing_models(plan)
    if missing:
        raise ConfigError(
            f"{plan.experiment.where}: the study's claims name {missing}, which 'unlearning' lacks; add them or "
            "change StudyConfig in src/resalign/config/study.py"
        )
    return plan


def missing_models(plan: Plan) -> list[str]:
    """Models that the study's claims name and the experiment lacks."""
    return sorted(set(StudyConfig().models) - set(plan.experiment.unlearning))


def _target(plan: Plan) -> str:
    return "selection" if missing_models(plan) else "study"


def _metrics(plan: Plan) -> dict[str, Any]:
    found = plan.experiment.metrics
    missing = [label for label in (SAFETY, UTILITY) if label not in found]
    if missing:
        raise ConfigError(f"{plan.experiment.where}: a study counts the metrics {missing}, which 'metrics' lacks")
    return {label: found[label] for label in (SAFETY, UTILITY)}
