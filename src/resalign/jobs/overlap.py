"""The job that compares the attacks' data with everything else, and where its result lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resalign.jobs.inputs import Input
from resalign.jobs.job import Job
from resalign.jobs.prompts import PromptList

if TYPE_CHECKING:
    from resalign.config.plan import Plan


class OverlapJob(Job):
    """A job of scripts/overlap.py."""

    pixels: int
    attacks: dict[str, dict[str, Input]]  # image sets of each attack
    images: dict[str, Input]  # image sets that unlearning or evaluation uses, as the page calls them
    prompts: dict[str, PromptList]

    @classmethod
    def of(cls, plan: Plan) -> OverlapJob:
        """The job of an experiment."""
        config, experiment, tier = plan.experiment.config, plan.experiment, plan.experiment.tier
        return cls(
            pixels=config.pixels,
            attacks={
                label: {key: Input.asset(plan, reference) for key, reference in data.images.items()}
                for label, data in experiment.attack_data.items()
            },
            images={name: Input.asset(plan, reference) for name, reference in _seen(plan).items()},
            prompts={
                name + attack: PromptList.of(plan, name, source=source, prompts=tier.prompts[name].prompts)
                for name in config.prompts
                for attack, source in experiment.prompt_sources(name).items()
            },
        )


def folder(plan: Plan) -> str | None:
    """Where the result lies, the same for every experiment that compares the same; None where nothing is attacked.

    No attack waits for it: runs are shared by experiments with other prompts, and another prompt is no reason to train
    again. What no attack may do at all, scripts/attack.py refuses.
    """
    return f"results/overlap/{OverlapJob.of(plan).digest()}" if plan.experiment.attacks else None


def _seen(plan: Plan) -> dict[str, str]:
    """Asset references of image sets that unlearning or evaluation uses, as the page calls them."""
    config = plan.experiment.config
    concept = config.concept
    training = {"forget set": concept.forget, "retain set": concept.retain, "pool": concept.pool}
    prior = {"prior images": concept.prior} if concept.prior else {}
    return {
        **training,
        **prior,
        **{"reference images" if name == config.reference else name: name for name in plan.real_images},
    }
