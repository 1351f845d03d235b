"""Class probabilities of a transformers image classifier: any ``AutoModelForImageClassification`` folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resalign.config.strict import Strict
from resalign.lazy import torch, transformers
from resalign.scorers._scorer import Scorer
from resalign.tensors.pretrained import load_network, load_processor
from resalign.tensors.weights import WeightsError


class Config(Strict):
    """Which folder; the classes, and what its numbers mean, are those of its ``config.json``."""

    folder: str


def load(config: Config, folder: Path, device: str) -> Scorer:
    """Loads classifier and preprocessing; quantities are its class names. Weights saved in half precision are widened.

    Raises:
        WeightsError: If the folder's class names are ambiguous.
    """
    model = load_network(transformers.AutoModelForImageClassification, folder).to(device)
    processor = load_processor(transformers.AutoImageProcessor, folder)

    def score(images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        inputs = processor(images=list(images), return_tensors="pt").to(device)
        with torch.no_grad():
            return activated(model(**inputs).logits, model.config).cpu()

    return Scorer(_classes(model.config.id2label, folder), score)


def activated(logits: torch.Tensor, config: Any) -> torch.Tensor:
    """Turns logits (B, classes) into scores by the problem type in the folder's ``config.json``.

    Source: transformers 5.23, ImageClassificationPipeline.postprocess. A head of one class is a sigmoid: its softmax
    would be 1 for every image.
    """
    if config.problem_type == "regression":
        return logits
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return logits.sigmoid()
    return logits.softmax(dim=-1)


def _classes(names: dict[int, Any], folder: Path) -> tuple[str, ...]:
    """The names of the network's outputs in their order; ``LABEL_0``, … where the folder has none."""
    if sorted(names) != list(range(len(names))):
        raise WeightsError(
            f"{folder / 'config.json'}: id2label numbers its classes {sorted(names)}; number them from 0 to "
            f"{len(names) - 1}, in the order of the network's outputs"
        )
    found = tuple(str(names[index]) for index in range(len(names)))
    [(name, times)] = Counter(found).most_common(1)
    if times > 1:
        raise WeightsError(
            f"{folder / 'config.json'}: id2label gives {times} classes the name '{name}'; name each apart"
        )
    return found
