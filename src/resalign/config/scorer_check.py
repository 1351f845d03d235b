"""The job and result folder of the rule that tries every scorer before the work."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from resalign.config.detector_audit import StandInConfig
from resalign.config.experiment import Member
from resalign.config.plan import RESULTS, Plan, digest
from resalign.config.scorer_needs import needs_of

FOUND = "detectors.json"


def references(plan: Plan) -> list[str]:
    """Every asset that is read: the scorers' networks, the images that they are shown, prompts and real images."""
    networks = [asset for member in plan.experiment.scorers.values() for asset in member.assets.values()]
    images = [*_shown(plan).values(), *(name for of in _compared(plan).values() for name in of)]
    prompts = [source for name in _lists(plan) for source in plan.experiment.prompt_sources(name).values()]
    return [*networks, *images, *prompts]


def job(plan: Plan) -> dict[str, Any]:
    """The job of scripts/check_scorers.py."""
    config = plan.experiment.config
    return {
        "pixels": config.pixels,
        "tier": plan.tier,
        "check": config.detector_check.model_dump(mode="json"),
        "images": {name: plan.folder(reference) for name, reference in _shown(plan).items()},
        "scorers": {
            label: {"settings": scorer.resolved(), "folder": scorer_folder(plan, scorer), "own": is_own(plan, scorer)}
            for label, scorer in plan.experiment.scorers.items()
        },
        # In an order of their own: that of a configuration's keys means nothing.
        "needs": sorted(([where, prompts, need] for where, prompts, need in _needs(plan)), key=str),
        "prompts": {
            name: {
                "columns": config.prompts[name].columns.model_dump(mode="json"),
                **config.prompts[name].chosen,
                "paths": [plan.folder(source) for source in plan.experiment.prompt_sources(name).values()],
                **plan.experiment.tier.prompts[name].model_dump(mode="json"),
            }
            for name in _lists(plan)
        },
        "compared": {label: [plan.folder(reference) for reference in of] for label, of in _compared(plan).items()},
    }


def folder(plan: Plan) -> str:
    """The result's folder.

    Nothing that trains waits for it: another threshold would train every model anew. It has priority instead, so that
    it runs as soon as networks and images are there, and ends the run if it fails.
    """
    return f"{RESULTS}/inputs/scorers-{digest(job(plan))}"


def is_ready(plan: Plan) -> bool:
    """Whether all that it reads is the user's own, in place: then it is the first job and has the machine to itself."""
    return all(plan.assets[plan.asset_of(reference)].origin == "path" for reference in references(plan))


def scorer_folder(plan: Plan, scorer: Member) -> str | dict[str, str] | None:
    """The folders that a scorer loads: none, one, or one by each key that names an asset."""
    folders = {key: plan.folder(asset) for key, asset in scorer.assets.items()}
    return folders if len(folders) > 1 else next(iter(folders.values()), None)


def is_own(plan: Plan, scorer: Member) -> bool:
    """Whether a scorer's network is the user's own, in place."""
    return any(plan.assets[plan.asset_of(asset)].origin == "path" for asset in scorer.assets.values())


def _shown(plan: Plan) -> dict[str, str]:
    concept = plan.experiment.config.concept
    return {"forget": concept.forget, "retain": concept.retain}


def _needs(plan: Plan) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(key in the configuration, prompt list, need) of every metric, and of the detector that labels for people."""
    for label, metric in plan.experiment.metrics.items():
        for need in needs_of(metric):
            yield f"metrics.{label}", getattr(metric.config, "prompts", ""), dataclasses.asdict(need)
    stand_in = plan.experiment.config.detector_audit.labels
    if isinstance(stand_in, StandInConfig):
        yield "detector_audit.labels", "", {"scorer": stand_in.scorer, "quantities": list(stand_in.quantities)}


def _lists(plan: Plan) -> list[str]:
    """The prompt lists whose labels are classes or folders, or whose images are counted."""
    asked = [
        name for _, name, need in _needs(plan) if need.get("labels") or need.get("images_per_dimension") is not None
    ]
    return list(dict.fromkeys(asked))


def _compared(plan: Plan) -> dict[str, list[str]]:
    """The sets of real images that a metric compares with, by its key in the configuration."""
    return {f"metrics.{label}": sorted(set(of.values())) for label, of in plan.compared.items()}
