"""The job of unlearning: one method on one model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resalign.jobs.inputs import Input
from resalign.jobs.training import TrainingJob, training_settings

if TYPE_CHECKING:
    from resalign.config.plan import Plan, Stage

SETS = ("forget", "retain", "pool")


class UnlearnJob(TrainingJob):
    """A job of scripts/unlearn.py; only the method ``imported`` has a checkpoint."""

    method: dict[str, Any]  # name and settings
    prompts: tuple[str, ...]
    forget: Input
    retain: Input
    pool: Input
    checkpoint: Input | None

    @classmethod
    def of(cls, plan: Plan, stage: Stage) -> UnlearnJob:
        """The job of a run, the same for every training seed."""
        config, member = plan.experiment.config, plan.experiment.unlearning[stage.model]
        concept = config.concept
        sets: dict[str, Any] = {name: Input.asset(plan, getattr(concept, name)) for name in SETS}
        return cls(
            **training_settings(plan, stage),
            model=Input.asset(plan, config.model),
            method=member.resolved(),
            prompts=concept.prompts,
            **sets,
            checkpoint=Input.asset(plan, member.asset) if member.asset else None,
        )

    @property
    def images(self) -> dict[str, Input]:
        """The image sets by name."""
        return {name: getattr(self, name) for name in SETS}
