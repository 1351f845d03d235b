"""Exported models: loaded by diffusers alone, equal bits by either form, no other base, no path of this machine."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from resalign.diffusion.export import apply_delta, changed_tensors, write_delta, write_pipeline
from resalign.diffusion.loaded_pipeline import LoadedPipeline, load_pipeline, trainable_tensors
from resalign.lazy import diffusers
from resalign.tensors.weights import WeightsError, save_weights
from tests import pipelines
from tests.nearness import differing


@pytest.fixture(scope="module")
def weights(loaded: LoadedPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As unlearning writes them: every tensor of the UNet, of which the first half has changed."""
    own = {name: t.detach() for name, t in trainable_tensors(loaded.pipeline).items() if name.startswith("unet.")}
    changed = {name: t + 0.05 * (place < len(own) // 2) for place, (name, t) in enumerate(own.items())}
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_weights(path, changed)
    return path


@pytest.fixture(scope="module")
def whole(pipeline_folder: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "model"
    write_pipeline(pipeline_folder, weights, folder)
    return folder


@pytest.fixture(scope="module")
def delta(pipeline_folder: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("delta") / "model"
    write_delta(pipeline_folder, weights, folder, "someone/a-base, revision 0123")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def drawn(pipeline: Any) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    prompts = ["a red seven", "a blue two"]
    images: torch.Tensor = pipeline(prompts, latents=noise, num_inference_steps=3, output_type="pt").images
    return images


@pytest.mark.slow
def test_diffusers_alone_loads_it_and_draws_the_same_images(whole: Path, pipeline_folder: Path, weights: Path) -> None:
    loaded = diffusers.StableDiffusionPipeline.from_pretrained(whole, local_files_only=True)
    unlearned = drawn(load_pipeline(pipeline_folder, weights).pipeline)
    assert (drawn(loaded) - unlearned).abs().max() <= 1 / 255
    assert (drawn(load_pipeline(pipeline_folder).pipeline) - unlearned).abs().max() > 1 / 255


def test_either_form_has_the_weights_bit_by_bit(whole: Path, delta: Path, pipeline_folder: Path, weights: Path) -> None:
    expected = trainable_tensors(load_pipeline(pipeline_folder, weights).pipeline)
    for found in (load_pipeline(whole), load_pipeline(pipeline_folder, delta / "delta.safetensors")):
        tensors = trainable_tensors(found.pipeline)
        assert tensors.keys() == expected.keys()
        assert not differing(tensors, expected)


def test_exports_are_a_function_of_their_input_byte_by_byte(
    pipeline_folder: Path, weights: Path, whole: Path, delta: Path, tmp_path: Path
) -> None:
    write_delta(pipeline_folder, weights, tmp_path / "delta", "someone/a-base, revision 0123")
    assert files(tmp_path / "delta") == files(delta)
    apply_delta(delta, pipeline_folder, tmp_path / "applied")  # writes the whole pipeline again
    assert files(tmp_path / "applied") == files(whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stable_diffusion_xl", "stable_diffusion_3"])
def test_other_architectures_and_text_encoders_too(kind: str, tmp_path: Path) -> None:
    base = pipelines.write_pipeline(kind, tmp_path / "base")
    loaded = load_pipeline(base)
    parts = (f"{loaded.architecture.denoiser}.", "text_encoder.")
    own = {name: t.detach() for name, t in trainable_tensors(loaded.pipeline).items() if name.startswith(parts)}
    save_weights(tmp_path / "weights.safetensors", {name: tensor + 0.05 for name, tensor in own.items()})
    write_pipeline(base, tmp_path / "weights.safetensors", tmp_path / "whole")
    write_delta(base, tmp_path / "weights.safetensors", tmp_path / "delta", "a base")
    apply_delta(tmp_path / "delta", base, tmp_path / "applied")
    assert files(tmp_path / "applied") == files(tmp_path / "whole")
    expected = trainable_tensors(load_pipeline(base, tmp_path / "weights.safetensors").pipeline)
    found = trainable_tensors(load_pipeline(tmp_path / "whole").pipeline)
    assert found.keys() == expected.keys()
    assert not differing(found, expected)


def test_either_form_has_only_what_changed(delta: Path, whole: Path, pipeline_folder: Path, weights: Path) -> None:
    held, base = load_file(delta / "delta.safetensors"), trainable_tensors(load_pipeline(pipeline_folder).pipeline)
    assert all(not torch.equal(tensor, base[name]) for name, tensor in held.items())
    assert len(held) == len(load_file(weights)) // 2
    manifest = json.loads((delta / "delta.json").read_text())
    assert (manifest["tensors"], manifest["of"]) == (len(held), len(base))
    before, after = files(pipeline_folder), files(whole)
    assert {name for name in before if before[name] != after.get(name)} == {"unet/diffusion_pytorch_model.safetensors"}
    assert not any(str(pipeline_folder).encode() in content for content in after.values())


def test_a_missing_safety_checker_leaves_the_index(pipeline_folder: Path, weights: Path, tmp_path: Path) -> None:
    """The catalogue fetches Stable Diffusion v1.4 without it, and its index names it."""
    base = tmp_path / "base"
    shutil.copytree(pipeline_folder, base)
    index = json.loads((base / "model_index.json").read_text())
    index |= {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "requires_safety_checker": True}
    (base / "model_index.json").write_text(json.dumps(index))
    write_pipeline(base, weights, tmp_path / "whole")
    found = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "whole", local_files_only=True)
    assert found.safety_checker is None
    assert found.config.requires_safety_checker is False


@pytest.mark.parametrize("changed", ["weights", "settings", "missing"])
def test_another_base_is_refused_by_its_hashes(
    changed: str, delta: Path, pipeline_folder: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(pipeline_folder, base)
    name = "vae/diffusion_pytorch_model.safetensors" if changed == "weights" else "scheduler/scheduler_config.json"
    content = bytearray((base / name).read_bytes())
    content[-2] ^= 1
    (base / name).write_bytes(content) if changed != "missing" else (base / name).unlink()
    with pytest.raises(WeightsError, match=f"not the base of this delta, which is someone/a-base.*{name}"):
        apply_delta(delta, base, tmp_path / "applied")
    assert not (tmp_path / "applied").exists()


def test_a_damaged_delta_is_refused(delta: Path, pipeline_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(delta, tmp_path / "delta")
    file = tmp_path / "delta" / "delta.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="sha256"):
        apply_delta(tmp_path / "delta", pipeline_folder, tmp_path / "applied")
    (tmp_path / "delta" / "delta.json").unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        apply_delta(tmp_path / "delta", pipeline_folder, tmp_path / "applied")


def test_the_bases_own_weights_and_a_full_folder_are_refused(
    loaded: LoadedPipeline, weights: Path, pipeline_folder: Path, tmp_path: Path
) -> None:
    own = {name: t.detach() for name, t in trainable_tensors(loaded.pipeline).items() if name.startswith("unet.")}
    save_weights(tmp_path / "own.safetensors", own)
    with pytest.raises(WeightsError, match="nothing to export"):
        changed_tensors(pipeline_folder, tmp_path / "own.safetensors")
    with pytest.raises(WeightsError, match="has files already"):
        write_pipeline(pipeline_folder, weights, tmp_path)
