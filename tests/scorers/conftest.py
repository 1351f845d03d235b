"""A tiny untrained network of every kind that a scorer loads from a folder, in the form in which it is published."""

import hashlib
import io
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from resalign.config import registry
from resalign.lazy import transformers
from resalign.scorers._scorer import Scorer
from tests.example_config import smallest

from .onnx_file import write_onnx

LABELS = ("two", "three", "seven", "nothing")
CLIP_SIZE = 12
CATEGORIES = ("sexual", "violent", "disturbing", "hateful", "political")
Folder = Path | dict[str, Path] | None


def write_classifier(folder: Path, labels: Sequence[str] = LABELS) -> Path:
    """A transformers image-classification folder."""
    names = dict(enumerate(labels))
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8],
        depths=[1, 1],
        layer_type="basic",
        num_labels=len(labels),
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

    architecture = {
        "embed_dim": CLIP_SIZE,
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


def seeded(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with numbers of a size that lets its output depend on its input."""
    draw = torch.Generator().manual_seed(seed)
    for tensor in network.state_dict().values():
        if tensor.dtype.is_floating_point:
            fan = tensor[0].numel() if tensor.dim() > 1 else 4
            tensor.copy_(torch.randn(tensor.shape, generator=draw) * (2 / fan) ** 0.5)
            if tensor.dim() == 1:
                tensor.abs_()  # variances are among them
    return network.eval()


def mhsc_head(seed: int) -> nn.Module:
    hidden = CLIP_SIZE // 2
    layers = nn.Linear(CLIP_SIZE, hidden), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(hidden), nn.Linear(hidden, 1)
    return seeded(nn.Sequential(*layers), seed)


class AestheticV2(nn.Module):
    """As simple_inference.py of improved-aesthetic-predictor has it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(CLIP_SIZE, 1024),
            nn.Dropout(0.2),
            nn.Linear(1024, 128),
            nn.Dropout(0.2),
            nn.Linear(128, 64),
            nn.Dropout(0.1),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layers(x)
        return found


class NsfwHead(nn.Module):
    """As NSFWModel_L14 in src/models.py of CLIP-based-NSFW-Detector."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Module()
        self.norm.register_buffer("mean", torch.zeros(CLIP_SIZE))
        self.norm.register_buffer("variance", torch.ones(CLIP_SIZE))
        self.linear_1, self.linear_2 = nn.Linear(CLIP_SIZE, 64), nn.Linear(64, 512)
        self.linear_3, self.linear_4 = nn.Linear(512, 256), nn.Linear(256, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x - self.norm.mean) / (self.norm.variance.sqrt() + 1e-10)
        for layer in (self.linear_1, self.linear_2, self.linear_3):
            x = torch.relu(layer(x))
        return torch.sigmoid(self.linear_4(x))


def write_q16(folder: Path) -> Path:
    prompts = np.random.default_rng(0).normal(size=(2, CLIP_SIZE)).astype("float16")
    (folder / "prompts.p").write_bytes(pickle.dumps(prompts, protocol=4))
    return folder


def write_mhsc(folder: Path) -> Path:
    for seed, category in enumerate(CATEGORIES):
        torch.save(mhsc_head(seed).state_dict(), folder / f"{category}.pt")
    return folder


def write_aesthetic(folder: Path) -> Path:
    torch.save(seeded(nn.Linear(CLIP_SIZE, 1)).state_dict(), folder / "sa_0_4_vit_l_14_linear.pth")
    return folder


def write_nsfw(folder: Path) -> Path:
    torch.save(seeded(NsfwHead()).state_dict(), folder / "clip_ViT-L-14_openai_binary_nsfw_head.pth")
    return folder


class InceptionOfNoise(FeatureExtractorInceptionV3):
    """The architecture without a file: the weights stay what they are at first."""

    def load_state_dict(self, *arguments: Any, **settings: Any) -> Any:
        return None


def write_inception(folder: Path) -> Path:
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    network = seeded(InceptionOfNoise("noise", ["2048"], feature_extractor_weights_path=nothing))
    torch.save(network.state_dict(), folder / "weights-inception-2015-12-05-6726825d.pth")
    return folder


def write_dino(folder: Path) -> Path:
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def write_safety_checker(folder: Path) -> Path:
    """A pipeline's two folders; the checker's is the answer."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        vision_config={**vision, "image_size": 32, "patch_size": 8, "projection_dim": 16}, projection_dim=16
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        checker = StableDiffusionSafetyChecker(config)
        for embeds in (checker.concept_embeds, checker.special_care_embeds):
            embeds.data = torch.randn_like(embeds)
        for thresholds in (checker.concept_embeds_weights, checker.special_care_embeds_weights):
            thresholds.data = 0.2 + 0.1 * torch.rand_like(thresholds)
    checker.save_pretrained(folder / "safety_checker")
    size = {"height": 32, "width": 32}
    transformers.CLIPImageProcessor(size=size, crop_size=size).save_pretrained(folder / "feature_extractor")
    return folder / "safety_checker"


def write_onnx_classifier(folder: Path) -> Path:
    write_onnx(folder / "model.onnx", *onnx_weights())
    return folder


def onnx_weights() -> tuple[np.ndarray, np.ndarray]:
    """Of a linear classifier on an image's mean colour: (3, classes) and (classes,)."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, len(LABELS))).astype("float32"), rng.normal(size=len(LABELS)).astype("float32")


# A scorer that loads no folder is not here. A dict: the makers of each of several folders, by their keys in the
# configuration. A new scorer that loads a folder names its maker here.
FOLDERS: dict[str, Callable[[Path], Path] | dict[str, Callable[[Path], Path]]] = {
    "aesthetic": {"folder": write_clip, "head": write_aesthetic},
    "clip": write_clip,
    "dino": write_dino,
    "image_classification": write_classifier,
    "inception": write_inception,
    "laion_nsfw": {"folder": write_clip, "head": write_nsfw},
    "mhsc": {"folder": write_clip, "head": write_mhsc},
    "onnx_classifier": write_onnx_classifier,
    "q16": {"folder": write_clip, "head": write_q16},
    "sd_safety_checker": write_safety_checker,
    "zero_shot_clip": write_clip,
}


def scorer_settings(name: str, folder: Folder) -> dict[str, Any]:
    """What the tiny network of a scorer needs said besides what :func:`smallest` fills in."""
    if name == "inception":
        assert isinstance(folder, Path)
        return {"sha256": sha256(next(folder.glob("*.pth")))}
    if name == "q16":
        assert isinstance(folder, dict)
        return {"sha256": sha256(folder["head"] / "prompts.p")}
    return {"mhsc": {"published": False}, "onnx_classifier": {"classes": LABELS, "pixels": 32}}.get(name, {})


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def scorer_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """The folder that a scorer loads, or its folders by key, by the scorer's name."""
    made: dict[str, Folder] = {}

    def folder(name: str) -> Folder:
        if name not in made:
            write = FOLDERS.get(name)
            if isinstance(write, dict):
                made[name] = {key: one(tmp_path_factory.mktemp(f"{name}-{key}")) for key, one in write.items()}
            else:
                made[name] = write(tmp_path_factory.mktemp(name)) if write else None
        return made[name]

    return folder


@pytest.fixture(scope="session")
def load_scorer(scorer_folder: Callable[[str], Any]) -> Callable[..., Scorer]:
    """A scorer on its tiny network: the name, then settings."""

    def load(name: str, **settings: Any) -> Scorer:
        module, folder = registry.member("scorers", name), scorer_folder(name)
        config = smallest(module.Config, **{**scorer_settings(name, folder), **settings})
        scorer: Scorer = module.load(config, folder, "cpu")
        return scorer

    return load


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    """Random images of low and high contrast, (6, 3, 32, 32), uint8."""
    draw = torch.Generator().manual_seed(3)
    pixels = torch.rand((6, 3, 32, 32), generator=draw) * torch.linspace(0.2, 1, 6)[:, None, None, None]
    return (255 * pixels).to(torch.uint8)
