"""The job of unlearning: one method on one model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resalign.jobs.inputs import Input
from resalign.jobs.training import TrainingJob, training_settings

if TYPE_CHECKING:
    from resalign.config.plan import Plan, Stage


class UnlearnJob(TrainingJob):
    """A job of scripts/unlearn.py.

    Attributes:
        method: Name and settings of the method.
        prompts: Prompts that name the concept.
        forget, retain, pool: Image sets.
        checkpoint: Released weights, for the method ``imported``.
    """

    method: dict[str, Any]
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
        return cls(
            **training_settings(plan, stage),
            model=Input.asset(plan, config.model),
            method=member.resolved(),
            prompts=concept.prompts,
            forget=Input.asset(plan, concept.forget),
            retain=Input.asset(plan, concept.retain),
            pool=Input.asset(plan, concept.pool),
            checkpoint=Input.asset(plan, member.asset) if member.asset else None,
        )

    @property
    def images(self) -> dict[str, Input]:
        """The image sets by name."""
        return {"forget": self.forget, "retain": self.retain, "pool": self.pool}
