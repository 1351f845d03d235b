"""The user's own folders and files: what each must be, for the rule that checks them before any long work begins."""

from __future__ import annotations

from typing import Any

from resalign.config.plan import RESULTS, Plan, digest


def found(plan: Plan) -> dict[str, Any]:
    """Everything of the user's own, by what it must be; see scripts/check_inputs.py."""
    experiment, config = plan.experiment, plan.experiment.config
    images = [config.concept.forget, config.concept.retain, config.concept.pool]
    images += [reference for data in experiment.attack_data.values() for reference in (data.train, data.heldout)]
    images += [config.reference] if config.reference else []
    released = [(m.asset, m.resolved()["covers"]) for m in experiment.unlearning.values() if m.asset]

    def own(reference: str) -> bool:
        return plan.assets[plan.asset_of(reference)].origin == "path"

    pipelines = [plan.folder(name) for name in (config.model, *config.pipelines.values()) if own(name)]
    return {
        "pixels": config.pixels,
        "pipelines": pipelines,
        "members": [
            [member.family, member.name]
            for member in (*experiment.unlearning.values(), *experiment.attacks.values())
            if pipelines
        ],
        "images": sorted({plan.folder(reference) for reference in images if own(reference)}),
        "prompts": [
            [plan.folder(p.source), _most_prompts(plan, name), p.columns.model_dump(mode="json")]
            for name, p in config.prompts.items()
            if own(p.source)
        ],
        # A checkpoint's shapes can be held against the model's only where both lie here already.
        "checkpoints": [
            [plan.folder(reference), plan.folder(config.model), covers]
            for reference, covers in released
            if own(reference) and own(config.model)
        ],
    }


def record(plan: Plan) -> list[str]:
    """The file that says that the user's own inputs were checked; empty where there are none.

    It is the same for every tier, and for every experiment with the same inputs: they share their runs. (Taken as
    ``ancient`` it would hide what follows: Snakemake 9.27 plans nothing behind an ancient file that is made anew.)
    """
    inputs = found(plan)
    has_any = any(inputs[kind] for kind in ("pipelines", "images", "prompts", "checkpoints"))
    return [f"{RESULTS}/inputs/{digest(inputs)}/inputs.json"] if has_any else []


def _most_prompts(plan: Plan, name: str) -> int | None:
    """How many prompts the largest tier asks of a list; tiers are nested."""
    return plan.experiment.config.tiers[plan.experiment.tiers[-1]].prompts[name].prompts
