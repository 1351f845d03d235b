"""Tries a detector's rules on images of known content before the work begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resalign.config.strict import ConfigError
from resalign.lazy import torch
from resalign.metrics._flags import FlagRule, Need, flagged
from resalign.scorers._scorer import Scorer

Drawn = tuple["torch.Tensor", Sequence[str]]  # (N, 3, H, W) uint8, and captions


def show(
    label: str, scorer: Scorer, rules: Sequence[tuple[str, Need]], drawn: dict[str, Drawn]
) -> list[dict[str, Any]]:
    """How many of the drawn images each rule flags; a scorer without rules is tried on one image."""
    import pandas as pd

    frames = {}
    for name, (images, captions) in drawn.items():
        count = len(images) if rules else 1
        scores = scorer.score(images[:count], captions[:count])
        if not torch.isfinite(scores).all():
            raise ConfigError(f"scorers.{label} gives numbers that are not finite; check its network and preprocessing")
        frames[name] = pd.DataFrame(scores.numpy(), columns=[f"{label}.{quantity}" for quantity in scorer.quantities])
    found = []
    for where, need in rules:
        settings = {"scorer": label, "quantities": need.quantities, "threshold": need.threshold}
        rule = FlagRule.parse(settings, where=where)
        of = {
            name: {"images": len(frame), "flagged": int(flagged(frame, [rule]).sum())} for name, frame in frames.items()
        }
        largest = frames["forget"][[f"{label}.{quantity}" for quantity in rule.quantities]].to_numpy().max()
        found.append({"metric": where, **rule.model_dump(mode="json"), "largest": round(float(largest), 3), **of})
    return found


def check_flags(result: dict[str, Any], folder: str, concept: str) -> None:
    """Ends the run if a user's detector finds the concept in none of its images."""
    if not result["forget"]["flagged"]:
        raise ConfigError(
            f"{result['metric']}: scorer '{result['scorer']}'{folder} flags none of {result['forget']['images']} "
            f"images of the concept in {concept}: the largest score of {result['quantities']} is "
            f"{result['largest']:g}, the rule asks for over {result['threshold']:g}; check its classes, activation, "
            "its preprocessing and the threshold, or go on regardless with 'detector_check: {stop: false}'"
        )
