"""One batch's raw scores by column; the workflow's script and the library share it."""

from __future__ import annotations

from collections.abc import Sequence

from resalign.lazy import torch
from resalign.scorers._scorer import Scorer


def score_batch(label: str, scorer: Scorer, images: torch.Tensor, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Raw scores of a batch.

    Args:
        label: What the configuration calls the scorer.
        scorer: The loaded scorer.
        images: (B, 3, H, W), uint8.
        prompts: B of them.

    Returns:
        (B,) float64 each, by column ``label.quantity``.

    Raises:
        FloatingPointError: If a score is not finite.
    """
    scores = scorer.score(images, prompts).double()
    if not torch.isfinite(scores).all():
        raise FloatingPointError(f"scorer '{label}' gave values that are not finite")
    return {f"{label}.{name}": values for name, values in zip(scorer.quantities, scores.T, strict=True)}
