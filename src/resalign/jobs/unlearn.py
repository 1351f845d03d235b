"""The job of unlearning: one method on one model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resalign.config.concept import IMAGE_SETS, OPTIONAL_FOLDERS, ConceptPrompts, needs_of
from resalign.jobs.inputs import Input
from resalign.jobs.training import TrainingJob, training_settings

if TYPE_CHECKING:
    from resalign.config.plan import Plan, Stage


class UnlearnJob(TrainingJob):
    """A job of scripts/unlearn.py; only the method ``imported`` has a checkpoint."""

    method: dict[str, Any]  # name and settings
    concepts: tuple[ConceptPrompts, ...]
    forget: Input
    retain: Input
    pool: Input
    retain_prompts: tuple[str, ...] = ()
    masks: Input | None = None
    prior: Input | None = None
    checkpoint: Input | None

    @classmethod
    def of(cls, plan: Plan, stage: Stage) -> UnlearnJob:
        """The job of a run, the same for every training seed."""
        config, member = plan.experiment.config, plan.experiment.unlearning[stage.model]
        concept = config.concept
        given: dict[str, Any] = {name: Input.asset(plan, getattr(concept, name)) for name in IMAGE_SETS}
        if "retain_prompts" in needs_of(member.config):
            given["retain_prompts"] = concept.retain_prompts
        for key in [key for key in OPTIONAL_FOLDERS if key in needs_of(member.config)]:
            given[key] = Input.asset(plan, getattr(concept, key))
        return cls(
            **training_settings(plan, stage),
            model=Input.asset(plan, config.model),
            method=member.resolved(),
            concepts=concept.concepts,
            **given,
            checkpoint=Input.asset(plan, member.asset) if member.asset else None,
        )

    @property
    def images(self) -> dict[str, Input]:
        """The image sets by name."""
        return {name: path for name in (*IMAGE_SETS, "prior") if (path := getattr(self, name))}
