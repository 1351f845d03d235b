"""Low-rank fine-tuning of the attention projections, the usual adapter of a downstream user.

Source: Hu 2022, arXiv 2106.09685; which layers, and how they begin, as in diffusers' training scripts.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from resalign.attacks._fine_tuning import FineTuningConfig, Tuning, fine_tune
from resalign.contracts import AttackData, Run, Save
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.lora_files import Lora
from resalign.diffusion.parametrisation import lora, named_weights
from resalign.tensors.params import detached


class Config(FineTuningConfig):
    """Rank 4 and learning rate 1e-4 are the defaults of diffusers' training script."""

    lr: float = Field(1e-4, gt=0)
    rank: int = Field(4, gt=0)
    alpha: float | None = Field(None, gt=0, description="the change is alpha / rank · B A; null for the rank")


def attack(loaded: LoadedPipeline, data: AttackData, config: Config, run: Run, save: Save) -> None:
    """Trains a LoRA; keeps merged weights, and the LoRA itself.

    See :func:`resalign.attacks._fine_tuning.fine_tune`.

    Raises:
        ValueError: If the denoiser has no attention projections.
    """
    original = named_weights(loaded.denoiser)
    scale = 1.0 if config.alpha is None else config.alpha / config.rank
    adapted = replace(lora(original, config.rank), scale=scale)
    start = {name: original[name] for name in adapted.names}
    initial = adapted.initial(start, run.generator("attack", "lora", "initial"))
    tuning = Tuning(
        "lora",
        detached(initial, requires_grad=True),
        weights=lambda variables: adapted.weights(start, variables),
        lora=lambda variables: Lora(loaded.architecture.denoiser, adapted, variables),
    )
    fine_tune(loaded, data, config, run, save, tuning)
