"""Class probabilities of a transformers image classifier: any ``AutoModelForImageClassification`` folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from resalign.config.strict import Strict
from resalign.lazy import torch, transformers
from resalign.scores import Scorer
from resalign.tensors.pretrained import load_network, load_processor


class Config(Strict):
    """Which folder; the classes are those of its ``config.json``."""

    folder: str


def load(config: Config, folder: Path, device: str) -> Scorer:
    """Loads classifier and preprocessing; quantities are its class names."""
    model = load_network(transformers.AutoModelForImageClassification, folder).to(device)
    processor = load_processor(transformers.AutoImageProcessor, folder)

    def score(images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        inputs = processor(images=list(images), return_tensors="pt").to(device)
        with torch.no_grad():
            probabilities: torch.Tensor = model(**inputs).logits.softmax(dim=-1)
        return probabilities.cpu()

    names = model.config.id2label
    return Scorer(tuple(str(names[index]) for index in range(len(names))), score)
