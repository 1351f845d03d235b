"""DINO features, by which the images of a subject are compared: a vision transformer's class token.

Source: Caron 2021, DINO ViT-S/16, arXiv 2104.14294 (facebook/dino-vits16), as DreamBooth, Ruiz 2022, arXiv 2208.12242,
measures subjects; or Oquab 2023, DINOv2, arXiv 2304.07193.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from resalign.config.strict import Strict
from resalign.lazy import torch, transformers
from resalign.scorers._scorer import Scorer, feature_names
from resalign.tensors.pretrained import load_network, load_processor


class Config(Strict):
    """Which folder: a transformers ViTModel or Dinov2Model with ``preprocessor_config.json``.

    Its weights are safetensors; ``pytorch_model.bin``, as DINO's release has them, is read for its tensors only.
    """

    folder: str


def load(config: Config, folder: Path, device: str) -> Scorer:
    """Loads the network; quantities are the class token after the last layer norm, ``f000``, ``f001``, ….

    Raises:
        WeightsError: If a weight is missing that the class token depends on.
    """
    model = load_network(transformers.AutoModel, folder, may_lack=("pooler.",), pickled=True).to(device)
    processor = load_processor(transformers.AutoImageProcessor, folder)

    def score(images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        inputs = processor(images=list(images), return_tensors="pt").to(device)
        with torch.no_grad():
            tokens: torch.Tensor = model(**inputs).last_hidden_state  # (B, 1 + patches, D)
        return tokens[:, 0].cpu()

    return Scorer(feature_names(model.config.hidden_size), score)
