"""What the rule audit tells its script, and the files that it writes: a resilience card of every model but the base."""

from __future__ import annotations

import json
from typing import Any

from resalign.config.experiment import BASE
from resalign.config.plan import RESULTS, Plan
from resalign.config.strict import ConfigError
from resalign.jobs import report
from resalign.jobs.job import as_json

SUFFIXES = ("md", "html")
MEASURED = ("metrics", "scorers", "attacks", "prompts", "sampling", "pixels", "precision")


def folder(plan: Plan) -> str:
    """Where the cards lie."""
    return f"{RESULTS}/{plan.experiment.config.name}/audit"


def card_models(plan: Plan) -> list[str]:
    """The models that get a card."""
    return [model for model in plan.experiment.models if model != BASE]


def card_files(plan: Plan) -> list[str]:
    """Every card."""
    return [f"{folder(plan)}/card-{model}.{suffix}" for model in card_models(plan) for suffix in SUFFIXES]


def card_job(plan: Plan) -> str:
    """What scripts/audit.py needs: what the report needs, and what each model is.

    Raises:
        ConfigError: If there is no model but the base.
    """
    experiment = plan.experiment
    models = card_models(plan)
    if not models:
        raise ConfigError(
            f"{experiment.where}: there is nothing to audit; name a model: audit: {{my-model: my/folder}}"
        )
    job = json.loads(report.report_job(plan))
    config = job["config"]
    return as_json(
        {
            **job,
            "command": plan.command("audit", tier=plan.tier),
            "measured": {**{key: config[key] for key in MEASURED}, "images": config["tiers"][plan.tier]["prompts"]},
            "base_folder": plan.folder(experiment.config.model),
            "sources": {model: _source(plan, model) for model in models},
        }
    )


def _source(plan: Plan, model: str) -> dict[str, Any]:
    """What a model is: a pipeline folder, or weights that an unlearning run has written, maybe from a checkpoint."""
    member = plan.experiment.unlearning.get(model)
    if member is None:
        return {"pipeline": plan.folder(plan.pipeline(model))}
    run = next(stage for stage in plan.unlearn.values() if stage.model == model)
    return {
        "method": member.resolved(),
        "checkpoint": plan.folder(member.asset) if member.asset else None,
        "weights": {seed: f"{run.folder(seed)}/weights.safetensors" for seed in plan.seeds(run)},
    }
