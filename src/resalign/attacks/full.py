"""Full-parameter fine-tuning on the denoising loss, as a downstream user of a released model does it."""

from __future__ import annotations

from resalign.attacks._fine_tuning import FineTuningConfig, Tuning, all_weights, fine_tune
from resalign.contracts import AttackData, Run, Save
from resalign.diffusion.loaded_pipeline import LoadedPipeline


class Config(FineTuningConfig):
    """Published: 200 steps, batch 1, learning rate 1e-5 [ResAlign, Section 4.1]."""


def attack(loaded: LoadedPipeline, data: AttackData, config: Config, run: Run, save: Save) -> None:
    """Fine-tunes all weights of the denoiser; see :func:`resalign.attacks._fine_tuning.fine_tune`."""
    fine_tune(loaded, data, config, run, save, Tuning("full", all_weights(loaded)))
