"""The denoiser's part of a weight file under the names that the denoiser itself has for it."""

from resalign.diffusion.models import Models
from resalign.lazy import torch
from resalign.tensors.named import Named


def of_denoiser(models: Models, weights: Named) -> dict[str, torch.Tensor]:
    """Without the component's prefix; a tensor of another component is an error."""
    prefix = f"{models.architecture.denoiser}."
    assert all(name.startswith(prefix) for name in weights)
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
