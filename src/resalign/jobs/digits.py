"""The jobs of the demo world: its parts, and the bars that it must meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resalign.config.closure import import_closure
from resalign.jobs.inputs import Input, watched
from resalign.jobs.job import Job

if TYPE_CHECKING:
    from resalign.config.plan import Plan

# Module of each part of the demo world; every other part is a detector.
MODULES = {
    "data": "datasets",
    "conjunction": "conjunction",
    "autoencoder": "autoencoder",
    "model": "generator",
    "clip": "clip",
}


class DigitsJob(Job):
    """A job of scripts/digits.py."""

    part: str
    digits: dict[str, Any]  # the part of the demo world's configuration that determines it
    autoencoder: Input | None  # for the model

    @classmethod
    def of(cls, plan: Plan, folder: str) -> DigitsJob:
        """The job of the part that is made in a folder.

        Only what determines the part is in it: a setting of another part is no reason to make this one anew.
        """
        part, encoder = digits_parts(plan)[folder], autoencoder_of(folder)
        autoencoder = Input(encoder, [f"{encoder}/run.json"]) if part == "model" else None
        return cls(part=part, digits=plan.world(part), autoencoder=autoencoder)

    @property
    def module(self) -> str:
        """The module that makes the part."""
        return f"resalign.digits.{MODULES.get(self.part, 'detectors')}"

    def code(self) -> str:
        """The code that makes the part: its own module's closure, so that editing a detector retrains no generator."""
        closure = import_closure("resalign.running.stage", "resalign.jobs.digits", self.module)
        return watched(["scripts/digits.py", *closure])


class BarsJob(Job):
    """A job of scripts/digits_bars.py: scores of the untouched model and of the reference images, and two metrics."""

    scores: Input
    reference: Input
    ip: dict[str, Any]
    retained_accuracy: dict[str, Any]
    detectors: dict[str, Input]

    @classmethod
    def of(cls, plan: Plan) -> BarsJob:
        """The job of an experiment on the demo world."""
        experiment = plan.experiment
        base = next(stage for stage in plan.score.values() if stage.model == experiment.models[0] and not stage.attack)
        reference = plan.reference_scores(str(experiment.config.reference))
        detectors = {part: folder for folder, part in digits_parts(plan).items() if part not in MODULES}
        return cls(
            scores=Input.file(f"{base.folder(plan.seeds(base)[0])}/{plan.tier}/scores.parquet"),
            reference=Input.file(f"{reference}/scores.parquet"),
            **{name: experiment.metrics[name].config.model_dump(mode="json") for name in ("ip", "retained_accuracy")},
            detectors={part: Input(folder, [f"{folder}/run.json"]) for part, folder in detectors.items()},
        )


def digits_parts(plan: Plan) -> dict[str, str]:
    """Part of the demo world by folder; the model's autoencoder is a part of its own, in a folder beside the model."""
    parts = {asset.folder: asset.resolved["digits"] for asset in plan.assets.values() if asset.origin == "digits"}
    return {**{autoencoder_of(folder): "autoencoder" for folder, part in parts.items() if part == "model"}, **parts}


def autoencoder_of(model_folder: str) -> str:
    """Folder of a demo model's autoencoder."""
    return f"{model_folder}-autoencoder"
