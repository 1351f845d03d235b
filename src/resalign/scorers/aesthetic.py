"""LAION's aesthetic score: the rating that people would give an image, from 1 to 10, by a head on CLIP's embedding.

Source: v1, LAION-AI/aesthetic-predictor@6d122adad522, sa_0_4_vit_l_14_linear.pth (the released code of ResAlign); v2,
christophschuhmann/improved-aesthetic-predictor@6934dd81792f, sac+logos+ava1-l14-linearMSE.pth. Both are trained on
normalised embeddings of OpenAI's ViT-L/14. v1 has 768 weights and a bias; v2 is a stack of linear layers without a
nonlinearity between them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from resalign.lazy import torch
from resalign.scorers._clip_model import ClipModel
from resalign.scorers._heads import HeadConfig, load_head, only_file
from resalign.scorers._scorer import Scorer

V2_WIDTHS = (1024, 128, 64, 16)
V2_DROPOUT = (0.2, 0.2, 0.1, None)  # after each; idle in use, but they number the layers in the file


class Config(HeadConfig):
    """Network and head, which is one file, ``.pth`` or ``.safetensors``.

    Attributes:
        version: Whose head it is.
    """

    version: Literal["v1", "v2"] = "v1"


def quantities(config: Config) -> tuple[str, ...]:
    """The one number."""
    return ("aesthetic",)


def load(config: Config, folder: Mapping[str, Path], device: str) -> Scorer:
    """Loads CLIP and head; the quantity is the score."""
    clip = ClipModel(folder["folder"], device)
    head = torch.nn.Linear(clip.size, 1) if config.version == "v1" else _stack(clip.size)
    load_head(head, only_file(folder["head"], (".pth", ".pt", ".safetensors")))
    head.to(device)

    def score(images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        embeddings = torch.nn.functional.normalize(clip.images(images), dim=1)
        with torch.no_grad():
            values: torch.Tensor = head(embeddings)
        return values.cpu()

    return Scorer(quantities(config), score)


def _stack(size: int) -> torch.nn.Module:
    """v2's layers, named as its file names them: ``layers.0.weight``, …, ``layers.7.bias``."""
    layers: list[torch.nn.Module] = []
    for width, dropout in zip(V2_WIDTHS, V2_DROPOUT, strict=True):
        layers += [torch.nn.Linear(size, width), *([torch.nn.Dropout(dropout)] if dropout else [])]
        size = width
    layers.append(torch.nn.Linear(size, 1))
    return torch.nn.Sequential(OrderedDict(layers=torch.nn.Sequential(*layers)))
