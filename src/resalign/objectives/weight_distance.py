"""How far unlearning has moved the weights.

Source: Siddiqui 2025, arXiv 2505.22310, where resistance to relearning goes with it; there on image classifiers.
"""

from __future__ import annotations

from resalign.lazy import torch
from resalign.tensors.params import Params


def distance(start: Params, end: Params) -> torch.Tensor:
    """‖θ − θ₀‖ over all tensors of ``start``, a scalar; its gradient is taken as zero where both are equal."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(end[name] - start[name]) for name in start]))
