"""A released checkpoint as it is: for baselines whose authors published weights, as the paper itself used them."""

from __future__ import annotations

from resalign.config.strict import Strict
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.models import Models
from resalign.diffusion.parametrisation import named_weights
from resalign.lazy import torch
from resalign.tensors.weights import WeightsError, load_weights


class Config(Strict):
    """Which checkpoint.

    Attributes:
        checkpoint: Asset that holds ``weights.safetensors`` with UNet parameters by diffusers' names.
    """

    checkpoint: str


def unlearn(models: Models, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Reads the checkpoint's UNet weights; every name and shape must fit the base model.

    Raises:
        WeightsError: If the file is missing, broken, or of another architecture.
    """
    if data.checkpoint is None:
        raise WeightsError(f"checkpoint '{config.checkpoint}' was not handed to the method")
    weights = load_weights(data.checkpoint / "weights.safetensors", named_weights(models.denoiser))
    run.history.record(0, imported_tensors=len(weights))
    return models.named(weights)
