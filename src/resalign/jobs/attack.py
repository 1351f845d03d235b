"""The job of an attack: one fine-tuning of one model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from resalign.jobs.inputs import Input
from resalign.jobs.prompts import PromptList
from resalign.jobs.training import TrainingJob, parent_weights, training_settings

if TYPE_CHECKING:
    from resalign.config.plan import Plan, Stage

SETS = ("train", "heldout", "prior", "harmful")  # image sets; the last two of some attacks only


class AttackJob(TrainingJob):
    """A job of scripts/attack.py."""

    attack: dict[str, Any]  # name and settings
    weights: Input | None  # unlearned ones, or checkpoints of the attack before; None for the model's own
    starts_from: Literal["unlearned", "base"] = "unlearned"  # what is fine-tuned
    train: Input
    heldout: Input
    prior: Input | None = None
    harmful: Input | None = None
    prompts: PromptList | None = None  # of an attack that changes prompts

    @classmethod
    def of(cls, plan: Plan, stage: Stage, seed: str) -> AttackJob:
        """The job of a run with one training seed."""
        label = stage.attack or ""
        attacked, sets = plan.attacked_prompts(label), plan.experiment.attack_data[label].images
        fields: dict[str, Any] = {name: Input.asset(plan, reference) for name, reference in sets.items()}
        if "starts_from" in stage.resolved:
            fields["starts_from"] = stage.resolved["starts_from"]
        if attacked:
            fields["prompts"] = PromptList.of(plan, attacked, prompts=plan.most_prompts(attacked))
        return cls(
            **training_settings(plan, stage),
            model=Input.asset(plan, plan.pipeline(stage.model)),
            attack=plan.experiment.attacks[label].resolved(),
            weights=parent_weights(stage, seed),
            **fields,
        )

    @property
    def images(self) -> dict[str, Input]:
        """The image sets that there are, by name."""
        return {name: getattr(self, name) for name in SETS if getattr(self, name) is not None}
