"""LAION's NSFW score: how likely an image shows nudity or pornography, by a head on CLIP's embedding.

Source: LAION-AI/CLIP-based-NSFW-Detector. The head for OpenAI's ViT-L/14 was trained in Keras (AutoKeras) and first
released as a TensorFlow SavedModel, clip_autokeras_binary_nsfw at @d6bb8fe31fd4. Reading that needs TensorFlow, and is
not done here. What is read is LAION's own conversion, ``models/clip_ViT-L-14_openai_binary_nsfw_head.pth`` at
@21072a2a38e6, of which no hash is known to us, or a safetensors file of the same tensors:

    norm.mean (D), norm.variance (D)
    linear_1.weight (64, D), linear_2.weight (512, 64), linear_3.weight (256, 512), linear_4.weight (1, 256), and biases

Who converts the SavedModel transposes Keras's kernels (convert_heads_to_pytorch.py of the source).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

from resalign.lazy import torch
from resalign.scorers._clip_model import ClipModel
from resalign.scorers._heads import HeadConfig, load_head, only_file
from resalign.scorers._scorer import Scorer

WIDTHS = (64, 512, 256, 1)
SMALLEST_DEVIATION = 1e-10  # src/models.py of the source adds it to the deviation; Keras takes a larger one or 1e-7


class Config(HeadConfig):
    """Network and head, which is one file, ``.pth`` or ``.safetensors``."""


def quantities(config: Config) -> tuple[str, ...]:
    """The one number."""
    return ("nsfw",)


def load(config: Config, folder: Mapping[str, Path], device: str) -> Scorer:
    """Loads CLIP and head; the quantity ``nsfw`` is a probability."""
    clip = ClipModel(folder["folder"], device)
    head = _head(clip.size)
    load_head(head, only_file(folder["head"], (".pth", ".pt", ".safetensors")))
    head.to(device)
    norm = dict(head.get_submodule("norm").named_buffers())
    mean, deviation = norm["mean"], norm["variance"].sqrt() + SMALLEST_DEVIATION

    def score(images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        values = (torch.nn.functional.normalize(clip.images(images), dim=1) - mean) / deviation
        with torch.no_grad():
            for index in range(1, len(WIDTHS)):
                values = head.get_submodule(f"linear_{index}")(values).relu()
            return head.get_submodule(f"linear_{len(WIDTHS)}")(values).sigmoid().cpu()

    return Scorer(quantities(config), score)


def _head(size: int) -> torch.nn.Sequential:
    """The head's tensors under their names in the file."""
    norm = torch.nn.Module()
    norm.register_buffer("mean", torch.zeros(size))
    norm.register_buffer("variance", torch.ones(size))
    layers: OrderedDict[str, torch.nn.Module] = OrderedDict(norm=norm)
    for index, width in enumerate(WIDTHS, 1):
        layers[f"linear_{index}"] = torch.nn.Linear(size, width)
        size = width
    return torch.nn.Sequential(layers)
