"""What attacks with prior preservation share: their settings and their loss."""

from __future__ import annotations

from pydantic import Field

from resalign.attacks._fine_tuning import FineTuningConfig, Loss
from resalign.config.passes import Passes
from resalign.config.strict import ConfigError
from resalign.contracts import AttackData, Run
from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.lazy import torch
from resalign.objectives.denoising import prior_preserving_loss
from resalign.tensors.params import Params


class PriorPreservingConfig(FineTuningConfig):
    """Settings of an attack with prior preservation, whose images are the entry's ``prior``."""

    prior_weight: float = Field(
        1.0, ge=0, description="of the loss on `prior`, images of the class at large; 0 needs none"
    )

    @property
    def image_sets(self) -> dict[str, bool]:
        """Images of the class at large, required unless their weight is 0."""
        return {"prior": self.prior_weight > 0}

    @property
    def denoiser_passes(self) -> Passes | None:
        """Of a step, as many of the class at large among them."""
        return Passes(gradient=self.batch_size * self.gradient_accumulation * (2 if self.prior_weight else 1))


def prior_preservation(
    loaded: LoadedPipeline, data: AttackData, config: PriorPreservingConfig, run: Run
) -> tuple[Loss | None, dict[str, torch.Generator]]:
    """The loss of an attack with prior preservation, which adds a batch of ``data.prior``, and its random stream.

    At weight 0 it is the plain loss, and no prior batch is drawn.

    Raises:
        ConfigError: If there are no prior images.
    """
    if not config.prior_weight:
        return None, {}
    if data.prior is None:
        raise ConfigError("prior_weight is above 0 and there are no images for it; give 'prior', or prior_weight: 0")
    prior, stream = data.prior, run.generator("attack", "prior")

    def loss(weights: Params, batch: NoisyBatch) -> torch.Tensor:
        beside = prior.draw(config.batch_size, stream)
        return prior_preserving_loss(loaded.denoiser, weights, batch, beside, config.prior_weight)

    return loss, {"prior_stream": stream}
