"""CLIP through open_clip: the similarity of image and prompt, and the image's embedding as features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from resalign.config.strict import Strict
from resalign.lazy import torch
from resalign.scorers._clip_model import ClipModel
from resalign.scorers._scorer import Scorer, feature_names


class Config(Strict):
    """Which model, and whether its embedding is kept.

    Attributes:
        folder: A folder with ``open_clip_config.json`` and ``open_clip_model.safetensors``.
        features: Keep the unnormalised image embedding too, as quantities ``f000``, ``f001``, …
    """

    folder: str
    features: bool = False


def quantities(config: Config) -> tuple[str, ...] | None:
    """The similarity; None with features, whose number depends on the folder's network."""
    return None if config.features else ("similarity",)


def load(config: Config, folder: Path, device: str) -> Scorer:
    """Loads the model; the quantity ``similarity`` is 100 × cosine, as torchmetrics and the field report it.

    Source: CLIP score, Hessel 2021, arXiv 2104.08718. Deviation: scale 100 and no clipping at 0, as is usual.
    """
    clip = ClipModel(folder, device)

    def score(images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        embeddings = clip.images(images)
        cosine = torch.nn.functional.cosine_similarity(embeddings, clip.texts(prompts))
        return torch.cat([100 * cosine[:, None], *([embeddings] if config.features else [])], dim=1).cpu()

    return Scorer(("similarity", *(feature_names(clip.size) if config.features else ())), score)
