"""The user's own folders and files: what each must be, for the rule that checks them before any long work begins."""

from __future__ import annotations

from typing import Any

from resalign.config.experiment import BASE
from resalign.config.plan import RESULTS, Plan, digest


def found(plan: Plan, model: str = BASE) -> dict[str, Any]:
    """The user's inputs that all runs share, or those that one model adds; see scripts/check_inputs.py.

    They are apart, so that another model, or one less, is no reason to run anything of the others again.
    """
    experiment, config = plan.experiment, plan.experiment.config
    images = [config.concept.forget, config.concept.retain, config.concept.pool]
    images += [reference for data in experiment.attack_data.values() for reference in data.images.values()]
    images += plan.references.values()
    pipeline, method = plan.pipeline(model), experiment.unlearning.get(model)
    checkpoint, covers = (method.asset, getattr(method.config, "covers", None)) if method else (None, None)

    def own(reference: str) -> bool:
        return plan.assets[plan.asset_of(reference)].origin == "path"

    shared: dict[str, Any] = {
        "pixels": config.pixels,
        "images": sorted({plan.folder(reference) for reference in images if own(reference)}),
        "prompts": [
            [plan.folder(source), plan.most_prompts(name), p.columns.model_dump(mode="json")]
            for name, p in config.prompts.items()
            for source in experiment.prompt_sources(name).values()
            if own(source)
        ],
    }
    members = [method] if method else list(experiment.attacks.values())
    return {
        **(shared if model == BASE else {"pixels": config.pixels, "images": [], "prompts": []}),
        "pipelines": [plan.folder(pipeline)] if own(pipeline) else [],
        "members": [[member.family, member.name] for member in members if own(pipeline)],
        # A checkpoint's shapes can be held against the model's only where both lie here already.
        "checkpoints": [[plan.folder(checkpoint), plan.folder(pipeline), covers]]
        if checkpoint and own(checkpoint) and own(pipeline)
        else [],
    }


def records(plan: Plan) -> dict[str, dict[str, Any]]:
    """Inputs to check by the file that records the check; empty without inputs of the user's own.

    They are the same for every tier, and for every experiment with the same inputs: these share their runs. (Taken as
    ``ancient`` it would hide what follows: Snakemake 9.27 plans nothing behind an ancient file that is made anew.)
    """
    return {name: found(plan, model) for model in plan.experiment.models for name in _record(plan, model)}


def record(plan: Plan, model: str = BASE) -> list[str]:
    """The files that record the checks of a model's inputs."""
    return list(dict.fromkeys([*_record(plan, BASE), *_record(plan, model)]))


def _record(plan: Plan, model: str) -> list[str]:
    inputs = found(plan, model)
    has_any = any(inputs[kind] for kind in ("pipelines", "images", "prompts", "checkpoints"))
    return [f"{RESULTS}/inputs/{digest(inputs)}/inputs.json"] if has_any else []
