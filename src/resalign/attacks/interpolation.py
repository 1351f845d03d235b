"""Fine-tuning from an interpolation towards the original model, whose weights are public.

Every tensor that unlearning changed, text encoders included, begins at θ_u + amount · (θ₀ − θ_u); then all weights of
the denoiser are fine-tuned on benign images as by ``full``. For a model that was not unlearned here (the base, or a
pipeline that is attacked as it is) the attack equals ``full``.

Source: the line between two models is WiSE-FT's, Wortsman 2022, arXiv 2109.01903, Section 3.
"""

from __future__ import annotations

from pydantic import Field

from resalign.attacks._fine_tuning import FineTuningConfig, Tuning, all_weights, fine_tune
from resalign.contracts import AttackData, Run, Save
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.lazy import torch
from resalign.tensors.params import Params


class Config(FineTuningConfig):
    """Half way is this project's choice."""

    amount: float = Field(0.5, ge=0, le=1, description="0 is the unlearned model, and so `full`; 1 is the original")


def start(config: Config, unlearned: Params, original: Params) -> dict[str, torch.Tensor]:
    """The weights that the attacker begins with; at either end of the line they are bit-equal to that model's."""
    # torch.lerp counts from the nearer end, so that rounding spoils neither.
    return {n: torch.lerp(tensor.to(original[n]), original[n], config.amount) for n, tensor in unlearned.items()}


def attack(loaded: LoadedPipeline, data: AttackData, config: Config, run: Run, save: Save) -> None:
    """Fine-tunes all weights of the denoiser of a model that has been loaded by :func:`start`."""
    fine_tune(loaded, data, config, run, save, Tuning("interpolation", all_weights(loaded)))
