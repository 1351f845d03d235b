"""The largest elements of named tensors, ranked together."""

from __future__ import annotations

from resalign.lazy import torch
from resalign.tensors.params import Params
from resalign.tensors.steps import DivergenceError


def top_share(scores: Params, share: float) -> dict[str, torch.Tensor]:
    """Marks the largest elements of all tensors together; of equal ones the first, so that their number is exact.

    Args:
        scores: A number for each element.
        share: Of the elements to mark, in [0, 1].

    Returns:
        True for each marked element, by name, on the scores' devices. The ranking is done on the CPU: the GPU's
        selection is not reproducible.

    Raises:
        DivergenceError: If a score is not finite.
    """
    flat = torch.cat([tensor.flatten().cpu() for tensor in scores.values()])
    if not torch.isfinite(flat).all():
        raise DivergenceError("scores to be ranked are not finite; the model or its gradient has diverged")
    count = round(share * len(flat))
    marked = torch.zeros_like(flat, dtype=torch.bool)
    if count:
        least = flat.kthvalue(len(flat) - count + 1).values
        marked = flat > least
        equal = (flat == least).nonzero().flatten()
        marked[equal[: count - int(marked.sum())]] = True
    parts = marked.split([tensor.numel() for tensor in scores.values()])
    return {
        name: part.view(scores[name].shape).to(scores[name].device) for name, part in zip(scores, parts, strict=True)
    }
