"""The LoRA that an attack trains, merged, unmerged and as its file, on every pipeline."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from resalign.attacks import lora
from resalign.contracts import AttackData
from resalign.data.prompts import Prompt
from resalign.diffusion.loaded_pipeline import LoadedPipeline, load_pipeline
from resalign.diffusion.lora_files import FILE_NAME, Lora, lora_changes, lora_metadata
from resalign.diffusion.parametrisation import LORA_TARGETS, named_weights
from resalign.diffusion.sampling import sample_images
from resalign.lazy import diffusers
from resalign.tensors.params import Params
from resalign.tensors.weights import save_weights
from tests.nearness import assert_near
from tests.pipelines import ONE_QUICKLY

from .recorded import attacked

every_pipeline = pytest.mark.parametrize("pipeline_kind", ONE_QUICKLY, indirect=True, scope="session")
# A learning rate at which three steps change the images.
STRONG = {"steps": 3, "lr": 0.3, "rank": 2, "alpha": 3.0}


def trained(loaded: LoadedPipeline, data: AttackData, **settings: Any) -> tuple[Params, Lora]:
    found = attacked(lora, loaded, data, **{**STRONG, **settings})
    return found.weights, found.loras[-1]


def images(loaded: LoadedPipeline) -> torch.Tensor:
    prompts = [(Prompt("0", "a red seven"), 0), (Prompt("1", "a blue two"), 0)]
    return sample_images(loaded, prompts, sampling_seed=0, num_inference_steps=3, guidance_scale=2.0).int()


@every_pipeline
def test_the_file_gives_a_plain_pipeline_the_merged_models_images(
    loaded: LoadedPipeline, pipeline_folder: Path, attack_data: AttackData, tmp_path: Path
) -> None:
    weights, found = trained(loaded, attack_data)
    save_weights(tmp_path / "merged.safetensors", weights)
    merged = load_pipeline(pipeline_folder, tmp_path / "merged.safetensors")
    found.write(tmp_path / "lora")
    lacking = dict.fromkeys(loaded.architecture.without)
    plain = diffusers.DiffusionPipeline.from_pretrained(pipeline_folder, **lacking)
    plain.set_progress_bar_config(disable=True)
    plain.load_lora_weights(tmp_path / "lora")
    unmerged = LoadedPipeline(plain, loaded.noise_scheduler)
    before, after = images(loaded), images(merged)
    assert (after - before).abs().max() > 16
    assert (images(unmerged) - after).abs().max() <= 1
    # The networks agree too, layer by layer: what diffusers itself merges is what the attack has saved.
    plain.fuse_lora()
    plain.unload_lora_weights()
    fused = loaded.named(named_weights(unmerged.denoiser))
    for name, tensor in loaded.named(named_weights(merged.denoiser)).items():
        assert_near(tensor, fused[name], 1e-5)


@every_pipeline
def test_the_file_reads_back_as_the_change(loaded: LoadedPipeline, attack_data: AttackData, tmp_path: Path) -> None:
    weights, found = trained(loaded, attack_data)
    found.write(tmp_path)
    path = tmp_path / FILE_NAME
    changes = lora_changes(load_file(path), lora_metadata(path), str(path))
    original = loaded.named(named_weights(loaded.denoiser))
    assert changes.keys() == weights.keys() == {name for name in original if name.endswith(LORA_TARGETS)}
    # A projection whose result the network does not use has no gradient: the text's queries in SD 3's last block.
    ranks = [int(torch.linalg.matrix_rank(change, rtol=1e-4)) for change in changes.values()]
    assert set(ranks) <= {0, 2}
    assert ranks.count(0) <= 1
    for name, change in changes.items():
        assert_near(weights[name], original[name] + change, 1e-6)


@pytest.mark.parametrize(("alpha", "scale"), [(None, 1.0), (6.0, 1.5)])
def test_the_change_is_alpha_over_rank(
    loaded: LoadedPipeline, attack_data: AttackData, alpha: float | None, scale: float
) -> None:
    weights, found = trained(loaded, attack_data, rank=4, alpha=alpha)
    original = loaded.named(named_weights(loaded.denoiser))
    for name, tensor in weights.items():
        layer = name.removeprefix("unet.")
        up, down = found.variables[f"lora_up.{layer}"], found.variables[f"lora_down.{layer}"]
        assert_near(tensor - original[name], scale * up @ down, 1e-6, scale=tensor)


def test_the_loras_of_earlier_steps_are_kept_as_they_were(loaded: LoadedPipeline, attack_data: AttackData) -> None:
    first, last = (found.variables for found in attacked(lora, loaded, attack_data, **STRONG, checkpoints=[1]).loras)
    assert all(not torch.equal(first[name], last[name]) for name in first if name.startswith("lora_up"))
