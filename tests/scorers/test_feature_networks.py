"""Inception and DINO features against their networks called by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from resalign.lazy import transformers
from resalign.scorers import dino
from resalign.scorers._scorer import Scorer, feature_names
from resalign.tensors.weights import WeightsError
from tests.nearness import assert_near

Load = Callable[..., Scorer]


@pytest.mark.parametrize("size", [64, 192, 768, 2048])
def test_inception_features_are_torch_fidelitys(
    size: int, load_scorer: Load, scorer_folder: Callable[[str], Any], images: torch.Tensor
) -> None:
    path = next(scorer_folder("inception").glob("*.pth"))
    network = FeatureExtractorInceptionV3("by hand", [str(size)], feature_extractor_weights_path=str(path))
    scorer = load_scorer("inception", features=size)
    assert sorted(scorer.quantities) == list(scorer.quantities) == list(feature_names(size))
    found = scorer.score(images[:2], ["", ""])
    assert torch.equal(found, network(images[:2])[0])
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_dino_features_are_the_class_token(
    load_scorer: Load, scorer_folder: Callable[[str], Any], images: torch.Tensor
) -> None:
    model = transformers.ViTModel.from_pretrained(scorer_folder("dino"), add_pooling_layer=False).eval()
    with torch.no_grad():
        expected = model(images / 255 * 2 - 1).last_hidden_state[:, 0]
    scorer = load_scorer("dino")
    assert scorer.quantities == tuple(f"f{index:03d}" for index in range(16))
    assert_near(scorer.score(images, [""] * 6), expected, 1e-5)
    assert expected.std(dim=0).max() > 1e-3


def test_dino_as_it_was_released(load_scorer: Load, scorer_folder: Callable[[str], Any], tmp_path: Path) -> None:
    """facebook/dino-vits16 has pytorch_model.bin alone, which must be tensors and nothing else."""
    from safetensors.torch import load_file

    for path in scorer_folder("dino").glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(scorer_folder("dino") / "model.safetensors")
    torch.save(weights, tmp_path / "pytorch_model.bin")
    noise = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    released = dino.load(dino.Config(folder="x"), tmp_path, "cpu")
    assert torch.equal(released.score(noise, ["", ""]), load_scorer("dino").score(noise, ["", ""]))
    torch.save({**weights, "harm": slice(0, 1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="slice"):
        dino.load(dino.Config(folder="x"), tmp_path, "cpu")


def test_dino_v2_folders_load_too(tmp_path: Path, images: torch.Tensor) -> None:
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    transformers.Dinov2Model(config).save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    scorer = dino.load(dino.Config(folder="x"), tmp_path, "cpu")
    assert scorer.score(images, [""] * 6).shape == (6, 16)
