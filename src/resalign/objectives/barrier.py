"""How far unlearning has moved the weights: their distance, and the loss barrier on the line between.

Source: Siddiqui 2025, arXiv 2505.22310, where resistance to relearning goes with both; there on image classifiers.
"""

from __future__ import annotations

from collections.abc import Callable

from resalign.lazy import torch
from resalign.tensors.params import Params


def distance(start: Params, end: Params) -> torch.Tensor:
    """‖θ − θ₀‖ over all tensors of ``start``, a scalar; its gradient is taken as zero where both are equal."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(end[name] - start[name]) for name in start]))


def barrier(loss: Callable[[Params], float], start: Params, end: Params, points: int) -> float:
    """max_a L(θ_a) − (1 − a)L(θ₀) − aL(θ) on the line θ_a = (1 − a)θ₀ + aθ; 0 where the line is never above its chord.

    Args:
        loss: L, the same function of the weights at every call.
        start: θ₀.
        end: θ, under the same names.
        points: Points of the line between its ends, at equal distances.

    Source: linear mode connectivity, Frankle 2020, arXiv 1912.05671; the chord, Entezari 2022, arXiv 2110.06296.
    """
    first, last, highest = loss(start), loss(end), 0.0
    for point in range(1, points + 1):
        a = point / (points + 1)
        between = {name: torch.lerp(start[name], end[name], a) for name in start}
        highest = max(highest, loss(between) - (1 - a) * first - a * last)
    return highest
