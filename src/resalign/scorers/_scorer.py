"""A loaded scorer: images in, one raw number a quantity out; no threshold is applied here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resalign.config import registry
from resalign.lazy import torch
from resalign.tensors.weights import WeightsError


@dataclass(frozen=True)
class Scorer:
    """A loaded scorer.

    Attributes:
        quantities: Names of the numbers that it gives.
        score: (images (B, 3, H, W) uint8, prompts) → (B, len(quantities)).
    """

    quantities: tuple[str, ...]
    score: Callable[[torch.Tensor, Sequence[str]], torch.Tensor]


def load_scorer(label: str, entry: Mapping[str, Any], device: str) -> Scorer:
    """Loads a scorer.

    Args:
        label: What a person calls it.
        entry: Its resolved ``settings``, and its ``folder``: none, one, or one by each key that names an asset.
        device: Where it runs.

    Raises:
        WeightsError: If a folder is not there, or holds no such network.
    """
    settings, folder = dict(entry["settings"]), entry["folder"]
    module = registry.member("scorers", settings.pop("name"))
    for path in folder.values() if isinstance(folder, dict) else [folder] if folder else []:
        if not Path(path).is_dir():
            raise WeightsError(
                f"{path}: no such folder, and scorer '{label}' loads it; correct the path, or put it there"
            )
    where = {k: Path(path) for k, path in folder.items()} if isinstance(folder, dict) else folder and Path(folder)
    scorer: Scorer = module.load(module.Config.parse(settings, where=f"scorers.{label}"), where, device)
    return scorer


def feature_names(size: int) -> tuple[str, ...]:
    """Quantities of a feature vector: ``f000``, ``f001``, …, with a fourth digit from 1,001 numbers on."""
    digits = max(3, len(str(size - 1)))
    return tuple(f"f{index:0{digits}d}" for index in range(size))
