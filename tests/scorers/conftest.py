"""A tiny untrained network of every kind that a scorer loads from a folder."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from resalign.lazy import transformers

LABELS = ("two", "three", "seven", "nothing")


def write_classifier(folder: Path) -> Path:
    """A transformers image-classification folder."""
    names = dict(enumerate(LABELS))
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8],
        depths=[1, 1],
        layer_type="basic",
        num_labels=len(LABELS),
        id2label=names,
        label2id={label: index for index, label in names.items()},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.ResNetForImageClassification(config).save_pretrained(folder)
    transformers.ConvNextImageProcessor(
        size={"shortest_edge": 32}, crop_pct=1.0, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(folder)
    return folder


def write_clip(folder: Path) -> Path:
    """An open_clip folder, as its ``local-dir:`` loader reads it."""
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    architecture = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 12, "vocab_size": 49_408, "width": 16, "heads": 2, "layers": 1},
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = CLIP(**architecture).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "open_clip_model.safetensors")
    preprocess = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
    settings = {"model_cfg": architecture, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    return folder


# None: the network ships in a package. A new scorer that loads a folder names its maker here.
FOLDERS: dict[str, Callable[[Path], Path] | None] = {
    "clip": write_clip,
    "image_classification": write_classifier,
    "nudenet": None,
}


@pytest.fixture(scope="session")
def scorer_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path | None]:
    """The folder that a scorer loads, by the scorer's name."""
    made: dict[str, Path | None] = {}

    def folder(name: str) -> Path | None:
        if name not in made:
            write = FOLDERS[name]
            made[name] = write(tmp_path_factory.mktemp(name)) if write else None
        return made[name]

    return folder


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    """Random images of low and high contrast, (6, 3, 32, 32), uint8."""
    draw = torch.Generator().manual_seed(3)
    pixels = torch.rand((6, 3, 32, 32), generator=draw) * torch.linspace(0.2, 1, 6)[:, None, None, None]
    return (255 * pixels).to(torch.uint8)
