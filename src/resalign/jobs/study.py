"""The job of a study, and the files that it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resalign.config.closure import import_closure
from resalign.config.strict import ConfigError
from resalign.config.study import SAFETY, UTILITY, SelectionConfig, StudyConfig
from resalign.jobs import measure, report
from resalign.jobs.inputs import Input
from resalign.jobs.job import Job

if TYPE_CHECKING:
    from resalign.config.plan import Plan


class StudyJob(Job):
    """A job of scripts/study.py."""

    name: str
    command: str  # makes the study again
    config: dict[str, Any]  # the experiment with every default filled in
    tier: str
    seeds: tuple[int, ...]
    base: str  # the model before unlearning
    models: tuple[str, ...]
    attacks: tuple[str, ...]
    metrics: dict[str, dict[str, Any]]  # name and settings of the metrics that are counted, by label
    measured: Input  # folder of the measured frames
    timings: tuple[tuple[str, str, int, str], ...]  # (stage, label, seed, folder) of every job behind the study
    study: StudyConfig
    selection: SelectionConfig

    def inputs(self) -> list[str]:
        """The measured frames, and the times of all jobs."""
        return [*super().inputs(), *(f"{folder}/timing.json" for *_, folder in self.timings)]

    @classmethod
    def of(cls, plan: Plan) -> StudyJob:
        """The job of an experiment."""
        experiment = plan.experiment
        return cls(
            name=experiment.config.name,
            command=plan.command("selection" if missing_models(plan) else "study"),
            config=experiment.resolved(),
            tier=plan.tier,
            seeds=experiment.tier.training_seeds,
            base=experiment.models[0],
            models=experiment.models,
            attacks=tuple(experiment.attacks),
            metrics={label: metric.resolved() for label, metric in _metrics(plan).items()},
            measured=Input(measure.folder(plan), measure.files(plan)),
            timings=tuple(report.report_timings(plan)),
            study=StudyConfig(),
            selection=SelectionConfig(),
        )


def module_code(module: str) -> list[str]:
    """Code inputs of a rule that runs a module of the package."""
    return [str(path) for path in import_closure(module)]


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


def _metrics(plan: Plan) -> dict[str, Any]:
    metrics = plan.experiment.metrics
    missing = [label for label in (SAFETY, UTILITY) if label not in metrics]
    if missing:
        raise ConfigError(f"{plan.experiment.where}: a study counts the metrics {missing}, which 'metrics' lacks")
    return {label: metrics[label] for label in (SAFETY, UTILITY)}
