"""What the rule export tells its script: which weights, of which base, and all that the model card says."""

from __future__ import annotations

import json
from typing import Any

from resalign.config.plan import RESULTS, Plan, Stage
from resalign.config.strict import ConfigError, nearest
from resalign.jobs import cards
from resalign.jobs.job import as_json

FORMS = ("whole", "delta")


def folder(plan: Plan) -> str:
    """Where the exported models lie."""
    return f"{RESULTS}/{plan.experiment.config.name}/export"


def deltas(plan: Plan) -> list[str]:
    """The delta of every unlearned model at the first training seed."""
    runs = plan.unlearn.values()
    return [f"{folder(plan)}/{stage.model}/seed-{plan.seeds(stage)[0]}/delta/model" for stage in runs]


def weights(plan: Plan, model: str, seed: str) -> dict[str, str]:
    """The unlearned weights and the record of the run that has made them.

    Raises:
        ConfigError: If nothing here has made such weights.
    """
    run = _run(plan, model)
    if int(seed) not in plan.seeds(run):
        raise ConfigError(
            f"{plan.experiment.where}: '{model}' has no training seed {seed} in tier {plan.tier}; it has "
            f"{list(plan.seeds(run))}"
        )
    return {"weights": f"{run.folder(seed)}/weights.safetensors", "made": f"{run.folder(seed)}/run.json"}


def export_job(plan: Plan, model: str, seed: str, form: str) -> str:
    """What scripts/export.py needs."""
    name = plan.asset_of(plan.experiment.config.model)
    base = plan.experiment.config.assets.get(name)
    revision = f", revision {base.revision}" if base and base.revision else ""
    found: dict[str, Any] = {
        **json.loads(cards.card_job(plan)),
        **weights(plan, model, seed),
        "model": model,
        "seed": int(seed),
        "form": form,
        "method": plan.experiment.unlearning[model].resolved(),
        # What an asset is called here, and a path of the user's own, is no name for others.
        "base_name": f"{(base and (base.hub or base.url)) or _named_by(plan)}{revision}",
        "base_hub": base.hub if base else None,
        "licence": base.licence if base else "",
        "terms": list(base.terms) if base else [],
        "command": plan.command(f"{folder(plan)}/{model}/seed-{seed}/{form}/model", tier=plan.tier),
    }
    return as_json(found)


def _named_by(plan: Plan) -> str:
    """A base that has no address, by the experiment that it is the base of."""
    return f"the base model of “{plan.experiment.config.title}”"


def _run(plan: Plan, model: str) -> Stage:
    found = next((stage for stage in plan.unlearn.values() if stage.model == model), None)
    if found is None:
        unlearned = [stage.model for stage in plan.unlearn.values()]
        raise ConfigError(
            f"{plan.experiment.where}: no unlearned model named '{model}'{nearest(model, unlearned)} (a model of "
            "'pipelines' is a whole folder already)"
        )
    return found
