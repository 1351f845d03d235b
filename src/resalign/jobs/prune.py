"""The job that removes scored images, and its record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resalign.config import registry
from resalign.config.plan import RESULTS
from resalign.config.shape import KeepImages
from resalign.jobs.inputs import Input
from resalign.jobs.job import Job

if TYPE_CHECKING:
    from resalign.config.plan import Plan, Stage

RECORD = "pruned.json"


class PruneJob(Job):
    """A job of scripts/prune.py.

    Attributes:
        keep: Which images stay.
        images: Manifest of the run's images.
        scores: Their raw scores.
        flags: Label and settings of the metric that flags images.
        shown: Prompt lists of which samples are shown; none of a training seed whose samples are not.
        shown_prompts: How many prompts of each.
    """

    keep: KeepImages
    images: Input
    scores: Input
    flags: tuple[str, dict[str, Any]]
    shown: tuple[str, ...]
    shown_prompts: int

    @classmethod
    def of(cls, plan: Plan, stage: Stage, seed: str, tier: str) -> PruneJob:
        """The job of a scored run with one training seed, as large as a tier."""
        assert stage.parent is not None
        experiment, config = plan.experiment, plan.experiment.config
        return cls(
            keep=config.keep_images,
            images=Input.file(f"{stage.parent.folder(seed)}/{tier}/images.csv"),
            scores=Input.file(f"{stage.folder(seed)}/{tier}/scores.parquet"),
            flags=(config.flagging_metric, experiment.metrics[config.flagging_metric].resolved()),
            shown=shown(plan, int(seed)),
            shown_prompts=config.report.gallery_prompts,
        )


def shown(plan: Plan, seed: int) -> tuple[str, ...]:
    """The lists of :func:`resalign.analysis.measured.samples`, which are of the first training seed."""
    if seed != plan.experiment.tier.training_seeds[0]:
        return ()
    metrics = plan.experiment.metrics.values()
    utility = [metric.config for metric in metrics if registry.member("metrics", metric.name).GROUP == "utility"]
    lists = [plan.experiment.config.gallery_prompts, *(getattr(config, "prompts", None) for config in utility)]
    return tuple(dict.fromkeys(filter(None, lists)))


def metric_module(plan: Plan) -> str:
    """Module of the metric that flags images."""
    return f"resalign.metrics.{plan.experiment.metrics[plan.experiment.config.flagging_metric].name}"


def files(plan: Plan) -> list[str]:
    """The record of each of a plan's runs; none where every image is kept."""
    if plan.experiment.config.keep_images == "all":
        return []
    return [
        f"{RESULTS}/runs/prune/{stage.run}/seed-{seed}/{plan.tier}/{RECORD}"
        for stage in plan.score.values()
        for seed in plan.seeds(stage)
    ]
