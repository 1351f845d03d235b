"""The resilience cards: a job for all of them, one card for every model but the base."""

from __future__ import annotations

from typing import Any

from resalign.config.experiment import BASE
from resalign.config.plan import RESULTS, Plan
from resalign.config.report import ReportConfig
from resalign.config.strict import ConfigError
from resalign.jobs import measure
from resalign.jobs.inputs import Input
from resalign.jobs.job import Part
from resalign.jobs.report import Checks

SUFFIXES = ("md", "html")
MEASURED = ("metrics", "scorers", "attacks", "prompts", "sampling", "pixels", "precision")


class CardSource(Part):
    """The source of a model: a pipeline folder, or weights that an unlearning run has written, maybe from a checkpoint."""

    pipeline: str | None = None
    method: dict[str, Any] = {}
    checkpoint: str | None = None
    weights: dict[str, str] = {}

    @classmethod
    def of(cls, plan: Plan, model: str) -> CardSource:
        """The source of one model of a plan."""
        member = plan.experiment.unlearning.get(model)
        if member is None:
            return cls(pipeline=plan.folder(plan.pipeline(model)))
        run = next(stage for stage in plan.unlearn.values() if stage.model == model)
        return cls(
            method=member.resolved(),
            checkpoint=plan.folder(member.asset) if member.asset else None,
            weights={str(seed): f"{run.folder(seed)}/weights.safetensors" for seed in plan.seeds(run)},
        )


class Described(Checks):
    """The content of cards besides the measured frames.

    Attributes:
        measured: Folder of the measured frames.
        concept: What a model should no longer show.
        config: The resolved configuration.
        report: Settings of intervals and verdicts.
        how: How everything was measured, as configured.
        base_folder: The base model's pipeline.
        sources: What each model is.
        command: Makes the cards again.
    """

    measured: Input
    concept: str
    config: dict[str, Any]
    report: ReportConfig
    how: dict[str, Any]
    base_folder: str
    sources: dict[str, CardSource]
    command: str

    @classmethod
    def fields_of(cls, plan: Plan, models: list[str]) -> dict[str, Any]:
        """The fields of an experiment, but for the command."""
        experiment = plan.experiment
        config = experiment.resolved()
        return {
            **Checks.checked(plan),
            "measured": Input(measure.folder(plan), measure.files(plan)),
            "concept": experiment.config.concept.name,
            "config": config,
            "report": experiment.config.report,
            "how": {**{key: config[key] for key in MEASURED}, "images": config["tiers"][plan.tier]["prompts"]},
            "base_folder": plan.folder(experiment.config.model),
            "sources": {model: CardSource.of(plan, model) for model in models},
        }


class CardsJob(Described):
    """The job of the rule cards."""

    @classmethod
    def of(cls, plan: Plan) -> CardsJob:
        """The job of an experiment.

        Raises:
            ConfigError: If there is no model but the base.
        """
        models = card_models(plan)
        if not models:
            raise ConfigError(
                f"{plan.experiment.where}: there is nothing to audit; name a model: audit: {{my-model: my/folder}}"
            )
        return cls(**cls.fields_of(plan, models), command=plan.command("audit", tier=plan.tier))


def folder(plan: Plan) -> str:
    """Folder of the cards."""
    return f"{RESULTS}/{plan.experiment.config.name}/audit"


def card_models(plan: Plan) -> list[str]:
    """The models that get a card."""
    return [model for model in plan.experiment.models if model != BASE]


def card_files(plan: Plan) -> list[str]:
    """Every card."""
    return [f"{folder(plan)}/card-{model}.{suffix}" for model in card_models(plan) for suffix in SUFFIXES]
