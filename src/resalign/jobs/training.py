"""The part of a job that unlearning and attacks share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resalign.config.precision import TrainingPrecision
from resalign.jobs.inputs import Input
from resalign.jobs.job import Job

if TYPE_CHECKING:
    from resalign.config.plan import Plan, Stage

WEIGHTS = {"unlearn": "weights.safetensors", "attack": "checkpoints.json"}  # a stage's file that others start from


class TrainingJob(Job):
    """A job that trains the pipeline in the folder ``model``; see :class:`resalign.config.shape.ResourcesConfig`."""

    label: str  # in messages
    pixels: int
    precision: TrainingPrecision
    device: str
    micro_batch_size: int | None = None
    gradient_checkpointing: bool = False
    cuda_graphs: bool = False
    model: Input


def training_settings(plan: Plan, stage: Stage) -> dict[str, Any]:
    """The fields of a :class:`TrainingJob` but its model; of options only those that are in use."""
    config, resources = plan.experiment.config, plan.experiment.resources(stage.stage)
    options = {name: getattr(resources, name) for name in ("micro_batch_size", "gradient_checkpointing", "cuda_graphs")}
    common = {"label": stage.label, "pixels": config.pixels, "precision": config.precision, "device": resources.device}
    return {**common, **{name: value for name, value in options.items() if value}}


def parent_weights(stage: Stage, seed: str) -> Input | None:
    """What a run starts from: unlearned weights or an attack's checkpoints; None for the base model's own weights."""
    return Input.file(f"{stage.parent.folder(seed)}/{WEIGHTS[stage.parent.stage]}") if stage.parent else None
