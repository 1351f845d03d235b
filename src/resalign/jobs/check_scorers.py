"""The job that tries every scorer before the work, and where its result lies."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from resalign.config.detector_audit import StandInConfig
from resalign.config.scorer_needs import DetectorCheckConfig, needs_of
from resalign.jobs.inputs import Input
from resalign.jobs.job import Job
from resalign.jobs.prompts import PromptChoice
from resalign.jobs.score import ScorerPart

if TYPE_CHECKING:
    from resalign.config.experiment import Member
    from resalign.config.plan import Plan

FOUND = "detectors.json"


class TriedScorer(ScorerPart):
    """A scorer that is tried."""

    own: bool  # whether its network is the user's own, in place


class CountedPrompts(PromptChoice):
    """A prompt list whose labels are classes or folders, or whose images are counted."""

    paths: tuple[Input, ...]
    images: int  # of each prompt


class CheckScorersJob(Job):
    """A job of scripts/check_scorers.py.

    Attributes:
        images: Image sets that scorers are shown.
        needs: (key in the configuration, prompt list, fields of a :class:`resalign.metrics._flags.Need`) of each metric
            and of the detector that labels in place of people.
        compared: Sets of real images that a metric compares with, by its key in the configuration.
    """

    pixels: int
    tier: str
    check: DetectorCheckConfig
    images: dict[str, Input]
    scorers: dict[str, TriedScorer]
    needs: tuple[tuple[str, str, dict[str, Any]], ...]
    prompts: dict[str, CountedPrompts]
    compared: dict[str, tuple[Input, ...]]

    @classmethod
    def of(cls, plan: Plan) -> CheckScorersJob:
        """The job of an experiment."""
        experiment, config = plan.experiment, plan.experiment.config
        counts = experiment.tier.prompts
        return cls(
            pixels=config.pixels,
            tier=plan.tier,
            check=config.detector_check,
            images={name: Input.asset(plan, getattr(config.concept, name)) for name in ("forget", "retain")},
            scorers={
                label: TriedScorer(**ScorerPart.fields_of(plan, scorer), own=is_own(plan, scorer))
                for label, scorer in experiment.scorers.items()
            },
            needs=tuple(sorted(_needs(plan), key=lambda need: str(list(need)))),  # not in the configuration's order
            prompts={
                name: CountedPrompts(
                    columns=config.prompts[name].columns,
                    **config.prompts[name].chosen,
                    paths=tuple(Input.asset(plan, source) for source in experiment.prompt_sources(name).values()),
                    prompts=counts[name].prompts,
                    images=counts[name].images,
                )
                for name in _lists(plan)
            },
            compared={
                f"metrics.{label}": tuple(Input.asset(plan, reference) for reference in sorted(set(of.values())))
                for label, of in plan.compared.items()
            },
        )


def folder(plan: Plan) -> str:
    """Where the result lies.

    Nothing that trains waits for it: another threshold would train every model again. It has priority instead, so that
    it runs as soon as networks and images are there, and ends the run if it fails.
    """
    return f"results/inputs/scorers-{CheckScorersJob.of(plan).digest()}"


def is_ready(plan: Plan) -> bool:
    """Whether the job reads only the user's own files, in place: then it is the first and has the machine to itself."""
    made = {f"{asset.folder}/run.json" for asset in plan.assets.values() if asset.origin != "path"}
    return made.isdisjoint(CheckScorersJob.of(plan).inputs())


def is_own(plan: Plan, scorer: Member) -> bool:
    """Whether a scorer's network is the user's own, in place."""
    return any(plan.assets[plan.asset_of(asset)].origin == "path" for asset in scorer.assets.values())


def _needs(plan: Plan) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for label, metric in plan.experiment.metrics.items():
        for need in needs_of(metric):
            yield f"metrics.{label}", getattr(metric.config, "prompts", ""), dataclasses.asdict(need)
    labels = plan.experiment.config.detector_audit.labels
    if isinstance(labels, StandInConfig):
        yield "detector_audit.labels", "", {"scorer": labels.scorer, "quantities": labels.quantities}


def _lists(plan: Plan) -> list[str]:
    """The prompt lists whose labels are classes or folders, or whose images are counted."""
    asked = [
        name for _, name, need in _needs(plan) if need.get("labels") or need.get("images_per_dimension") is not None
    ]
    return list(dict.fromkeys(asked))
