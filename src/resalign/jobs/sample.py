"""The job of sampling: the images of one model, before fine-tuning or along an attack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resalign.config.sampling import SamplingConfig
from resalign.jobs.inputs import Input
from resalign.jobs.job import Job
from resalign.jobs.prompts import PromptList
from resalign.jobs.training import parent_weights

if TYPE_CHECKING:
    from resalign.config.plan import Plan, Stage


class SampledPrompts(PromptList):
    """A prompt list that images are made of."""

    along_the_way: bool  # whether every checkpoint is sampled on it, or the last only
    images: int  # of each prompt


class SampleJob(Job):
    """A job of scripts/sample.py; without weights and checkpoints the model has its own weights."""

    label: str  # in messages
    model: Input
    weights: Input | None
    checkpoints: Input | None
    device: str
    sampling: SamplingConfig
    prompts: dict[str, SampledPrompts]
    attacked_prompts: str | None = None  # label of the list whose texts the attack has changed

    @classmethod
    def of(cls, plan: Plan, stage: Stage, seed: str, tier: str) -> SampleJob:
        """The job of a run with one training seed, as large as a tier."""
        config, start = plan.experiment.config, parent_weights(stage, seed)
        counts = {str(name): count.prompts for name, count in config.tiers.items()}[tier]
        attacked = plan.attacked_prompts(stage.attack)
        return cls(
            label=f"{stage.label} seed {seed}",
            model=Input.asset(plan, plan.pipeline(stage.model)),
            weights=None if stage.attack else start,
            checkpoints=start if stage.attack else None,
            device=plan.experiment.resources("sample").device,
            sampling=config.sampling,
            prompts={
                name: SampledPrompts.of(
                    plan,
                    name,
                    source=source,
                    along_the_way=entry.along_the_way,
                    prompts=counts[name].prompts,
                    images=counts[name].images,
                )
                for name, entry in config.prompts.items()
                if (source := entry.source_after(stage.attack)) is not None
            },
            **({"attacked_prompts": attacked} if attacked else {}),
        )
