"""The denoiser's part of a weight file under the names that the denoiser itself has for it."""

from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.lazy import torch
from resalign.tensors.params import Params


def of_denoiser(loaded: LoadedPipeline, weights: Params) -> dict[str, torch.Tensor]:
    """Without the component's prefix; a tensor of another component is an error."""
    prefix = f"{loaded.architecture.denoiser}."
    assert all(name.startswith(prefix) for name in weights)
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
