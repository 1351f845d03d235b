"""The job that compares the attacks' and unlearning's data with everything else, and where its result lies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from resalign.jobs.inputs import Input
from resalign.jobs.job import Job
from resalign.jobs.prompts import PromptList

if TYPE_CHECKING:
    from resalign.config.plan import Plan


class OverlapJob(Job):
    """A job of scripts/overlap.py; unlearning's and evaluation's image sets are called as on the page.

    Attributes:
        attacks: Image sets of each attack.
        unlearning: Those of the concept.
        evaluation: Real images that metrics compare with.
        prompts: Prompt lists.
        words: Prompts that unlearning is given without images, by their key.
        apart: For each list, those of all these that may hold none of its prompts.
    """

    pixels: int
    attacks: dict[str, dict[str, Input]]
    unlearning: dict[str, Input]
    evaluation: dict[str, Input]
    prompts: dict[str, PromptList]
    words: dict[str, tuple[str, ...]]
    apart: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, plan: Plan) -> OverlapJob:
        """The job of an experiment."""
        config, experiment, tier = plan.experiment.config, plan.experiment, plan.experiment.tier
        concept = config.concept
        training = {"forget set": concept.forget, "retain set": concept.retain, "pool": concept.pool}
        if concept.prior:
            training["prior images"] = concept.prior
        return cls(
            pixels=config.pixels,
            attacks={
                label: {key: Input.asset(plan, reference) for key, reference in data.images.items()}
                for label, data in experiment.attack_data.items()
            },
            unlearning={name: Input.asset(plan, reference) for name, reference in training.items()},
            evaluation={
                "reference images" if name == config.reference else name: Input.asset(plan, name)
                for name in plan.real_images
            },
            prompts={
                name + attack: PromptList.of(plan, name, source=source, prompts=tier.prompts[name].prompts)
                for name in config.prompts
                for attack, source in experiment.prompt_sources(name).items()
            },
            words=words_of(plan),
            apart={
                name + attack: apart_from(plan, training, attack)
                for name, of in config.prompts.items()
                for attack in experiment.prompt_sources(name)
                if not of.may_be_captions
            },
        )


def words_of(plan: Plan) -> dict[str, tuple[str, ...]]:
    """The concept's prompts, by key."""
    concept = plan.experiment.config.concept
    named = tuple(prompt for words in concept.concepts for prompt in (*words.prompts, words.substitute) if prompt)
    return {"concept.prompts": named, "concept.retain_prompts": tuple(concept.retain_prompts)}


def apart_from(plan: Plan, training: Iterable[str], attack: str) -> tuple[str, ...]:
    """What may hold no prompt of a list: what is trained on, but the images of the attack (after a dot) that it is for.

    What a user asks for who has personalised a model may well be what the user's own images are called.
    """
    data = plan.experiment.attack_data
    attacks = [f"attacks.{label}.{key}" for label in data if f".{label}" != attack for key in data[label].images]
    attacks = [name for name in attacks if name.endswith((".train", ".prior"))]
    unlearning = (*training, *words_of(plan)) if plan.experiment.unlearning else ()
    return tuple(sorted((*unlearning, *attacks)))


def folder(plan: Plan) -> str | None:
    """Where the result lies, the same for every experiment that compares the same; None where nothing is trained.

    No attack waits for it: runs are shared by experiments with other prompts, and another prompt is no reason to train
    again. What no attack may do at all, scripts/attack.py refuses.
    """
    trained = plan.experiment.attacks or plan.experiment.unlearning
    return f"results/overlap/{OverlapJob.of(plan).digest()}" if trained else None
