"""Edits of a matrix as a library solves them: all equations W k = v stacked, by orthogonal factorisation."""

from collections.abc import Sequence

import numpy as np
import torch

# (weight, keys (n, d), values (n, d_out)): the squares of W k − v, each times the weight.
Block = tuple[float, torch.Tensor, torch.Tensor]


def least_squares(blocks: Sequence[Block]) -> torch.Tensor:
    """W (d_out, d), the smallest of those with the least sum of squares."""
    left = np.concatenate([weight**0.5 * keys.numpy() for weight, keys, _ in blocks])
    right = np.concatenate([weight**0.5 * values.numpy() for weight, _, values in blocks])
    return torch.from_numpy(np.linalg.lstsq(left, right, rcond=None)[0].T)


def near(weight: float, start: torch.Tensor) -> Block:
    """weight · ‖W − W₀‖²."""
    return weight, torch.eye(start.shape[1], dtype=start.dtype), start.T


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers, float64."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
