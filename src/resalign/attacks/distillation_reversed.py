"""Fine-tuning on harmful images with the defence's distillation reversed, by an attacker who knows its objective.

ResAlign ties its model to the original's predictions, R(θ) = E‖ε_θ − ε₀‖² [ResAlign, Eq. 3]. An attacker who had the
original would not need to attack; this one has only the unlearned model θ_u, and reverses the term around it: on
harmful images, ``train``, the loss is E‖ε_θ − ε‖² − weight · E min(‖ε_θ − ε_u‖², truncation), with ε_u the unlearned
model's own predictions. Unlearning turned those predictions away from the concept; moving away from them leads back. At
θ_u the added term has no gradient: plain fine-tuning takes the first step, and the term then adds to it.

The paper reports adaptive attacks [ResAlign, limitations] without describing any; it mixes harmful data into a plain
fine-tuning [ResAlign, Section 4.2]. Term, weight and truncation are this project's choice.
"""

from __future__ import annotations

from pydantic import Field

from resalign.attacks._fine_tuning import FineTuningConfig, Tuning, all_weights, fine_tune
from resalign.config.passes import Passes
from resalign.contracts import AttackData, Run, Save
from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.lazy import torch
from resalign.objectives.distillation import reversed_distillation_loss
from resalign.tensors.params import Params

AGAINST_ITS_START = True  # which must be the unlearned model


class Config(FineTuningConfig):
    """At weight 1/2 the best prediction lies twice as far from the unlearned model's as the noise does."""

    weight: float = Field(0.5, ge=0, description="of the reversed distillation; 0 is plain fine-tuning")
    truncation: float = Field(1.0, gt=0, description="distance at which an example is pushed no further")

    @property
    def denoiser_passes(self) -> Passes | None:
        """Of a step; the unlearned model is asked, too."""
        examples = self.batch_size * self.gradient_accumulation
        return Passes(gradient=examples, forward=examples if self.weight else 0)


def attack(loaded: LoadedPipeline, data: AttackData, config: Config, run: Run, save: Save) -> None:
    """Fine-tunes all weights of the denoiser; see :func:`resalign.attacks._fine_tuning.fine_tune`."""
    unlearned = named_weights(loaded.denoiser)

    def loss(weights: Params, batch: NoisyBatch) -> torch.Tensor:
        return reversed_distillation_loss(
            loaded.denoiser, weights, unlearned, batch, weight=config.weight, truncation=config.truncation
        )

    tuning = Tuning("distillation_reversed", all_weights(loaded), loss=loss if config.weight else None)
    fine_tune(loaded, data, config, run, save, tuning)
