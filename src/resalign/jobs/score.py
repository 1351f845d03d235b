"""The job of scoring: raw scores of one run's images, or of a set of real images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resalign.jobs.inputs import Input
from resalign.jobs.job import Job, Part

if TYPE_CHECKING:
    from resalign.config.experiment import Member
    from resalign.config.plan import Plan, Stage


class ScorerPart(Part):
    """One scorer."""

    settings: dict[str, Any]  # with its name
    folder: Input | dict[str, Input] | None  # of its network, or one for each key that names an asset

    @classmethod
    def fields_of(cls, plan: Plan, scorer: Member) -> dict[str, Any]:
        """Its fields, from the plan."""
        folders = {key: Input.asset(plan, asset) for key, asset in scorer.assets.items()}
        folder = folders if len(folders) > 1 else next(iter(folders.values()), None)
        return {"settings": scorer.resolved(), "folder": folder}

    @property
    def folders(self) -> list[Input]:
        """Every folder that it loads."""
        return list(self.folder.values()) if isinstance(self.folder, dict) else [self.folder] if self.folder else []


class ScoreJob(Job):
    """A job of scripts/score.py."""

    label: str  # in messages
    images: Input  # the manifest of generated images, or the table of captions of real ones
    pixels: int | None  # edge to which real images are cut
    device: str
    batch_size: int
    scorers: dict[str, ScorerPart]

    @classmethod
    def of(cls, plan: Plan, stage: Stage, seed: str, tier: str) -> ScoreJob:
        """The job of a run with one training seed, as large as a tier."""
        assert stage.parent is not None
        images = Input.file(f"{stage.parent.folder(seed)}/{tier}/images.csv")
        return cls(label=f"{stage.label} seed {seed}", images=images, pixels=None, **_shared(plan))

    @classmethod
    def of_reference(cls, plan: Plan, reference: str) -> ScoreJob:
        """The job of a set of real images."""
        label = "reference" if reference == plan.experiment.config.reference else f"reference {reference}"
        images = Input.captions(plan, reference)
        return cls(label=label, images=images, pixels=plan.experiment.config.pixels, **_shared(plan))


def _shared(plan: Plan) -> dict[str, Any]:
    return {
        "device": plan.experiment.resources("score").device,
        "batch_size": plan.experiment.config.scoring_batch_size,
        "scorers": {
            label: ScorerPart(**ScorerPart.fields_of(plan, scorer)) for label, scorer in plan.experiment.scorers.items()
        },
    }
