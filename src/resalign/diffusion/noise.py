"""Initial noise of an image, keyed so that it is the same for every model, batch and machine."""

from __future__ import annotations

from collections.abc import Sequence

from resalign.lazy import torch
from resalign.tensors.seeds import generator


def initial_noise(keys: Sequence[tuple[str, int]], sampling_seed: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """Standard normal latents (B, C, h, w), one for each (prompt id, image index).

    Args:
        keys: Which images.
        sampling_seed: The sampling seed of the experiment; training seeds play no part.
        shape: (C, h, w) of one latent.
    """
    return torch.stack(
        [
            torch.randn(shape, generator=generator("initial noise", prompt_id, index, sampling_seed))
            for prompt_id, index in keys
        ]
    )
