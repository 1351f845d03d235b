"""What the rule that compares the attacks' data with everything else is told, and where its result lies."""

from __future__ import annotations

from typing import Any

from resalign.config.experiment import TRAIN
from resalign.config.plan import RESULTS, Plan, digest


def references(plan: Plan) -> list[str]:
    """Every asset that is compared."""
    config, attacked = plan.experiment.config, plan.experiment.attack_data.values()
    images = [reference for data in attacked for reference in data.images.values()]
    prompts = [source for name in config.prompts for source in plan.experiment.prompt_sources(name).values()]
    return [*images, *_seen(plan).values(), *prompts]


def job(plan: Plan) -> dict[str, Any]:
    """What scripts/overlap.py needs: each attack's sets, and what unlearning and evaluation have seen."""
    config, tier = plan.experiment.config, plan.experiment.tier
    return {
        "pixels": config.pixels,
        "attacks": {
            label: {key: plan.folder(reference) for key, reference in data.images.items()}
            for label, data in plan.experiment.attack_data.items()
        },
        "images": {name: plan.folder(reference) for name, reference in _seen(plan).items()},
        "prompts": {
            name + attack: {
                "path": plan.folder(source),
                "columns": prompts.columns.model_dump(mode="json"),
                "prompts": tier.prompts[name].prompts,
                **prompts.chosen,
            }
            for name, prompts in config.prompts.items()
            for attack, source in plan.experiment.prompt_sources(name).items()
        },
    }


def folder(plan: Plan) -> str | None:
    """Where the result lies, the same for every experiment that compares the same; None where nothing is attacked.

    No attack waits for it: runs are shared by experiments of other prompts, and a further prompt is no reason to train
    anew. What no attack may do at all, it refuses by itself (scripts/attack.py).
    """
    return f"{RESULTS}/overlap/{digest(job(plan))}" if plan.experiment.attacks else None


def _seen(plan: Plan) -> dict[str, str]:
    """Image sets that unlearning or evaluation uses, as the page calls them."""
    config = plan.experiment.config
    own = {"forget set": config.concept.forget, "retain set": config.concept.retain, "pool": config.concept.pool}
    # An attack's own images, with which a metric of personalisation compares, are no overlap.
    compared = [config.reference, *(name for name in plan.experiment.references.values() if name != TRAIN)]
    names = [reference for reference in dict.fromkeys(compared) if reference is not None]
    return {**own, **{"reference images" if name == config.reference else name: name for name in names}}
