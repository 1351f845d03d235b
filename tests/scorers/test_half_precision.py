"""Networks that are saved in half precision are widened: scores are computed in float32, as everywhere."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from resalign.config import registry
from tests.example_config import smallest


@pytest.mark.parametrize("name", ["image_classification", "dino", "sd_safety_checker", "clip"])
def test_weights_in_half_precision_are_widened(
    name: str, scorer_folder: Callable[[str], Any], tmp_path: Path, images: torch.Tensor
) -> None:
    source = scorer_folder(name)
    rounded, half = tmp_path / "rounded", tmp_path / "half"
    for target in (rounded, half):
        # A safety checker's preprocessing lies beside it.
        shutil.copytree(source.parent if name == "sd_safety_checker" else source, target)
    for file in half.rglob("*.safetensors"):
        weights = {key: tensor.half() for key, tensor in load_file(file).items()}
        save_file(weights, file, metadata={"format": "pt"})
        widened = {key: tensor.float() for key, tensor in weights.items()}
        save_file(widened, rounded / file.relative_to(half), metadata={"format": "pt"})
    module = registry.member("scorers", name)
    found = []
    for target in (rounded, half):
        folder = target / source.name if name == "sd_safety_checker" else target
        found.append(module.load(smallest(module.Config), folder, "cpu").score(images, ["a"] * len(images)))
    assert found[1].dtype == torch.float32
    assert torch.equal(*found)
