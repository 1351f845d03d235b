"""Loading a pipeline folder; its forward process for training; weight files put into it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from resalign.diffusion.conditioning import concatenate
from resalign.diffusion.loaded_pipeline import LoadedPipeline, load_pipeline, trainable_tensors
from resalign.tensors.weights import WeightsError, save_weights
from tests.nearness import assert_near


def noise_share(scheduler: object, timestep: int) -> float:
    """How much of a noisy latent is noise, for latents of zeros and noise of ones."""
    ones = torch.ones(1, 4, 8, 8)
    noisy: torch.Tensor = scheduler.add_noise(torch.zeros_like(ones), ones, torch.tensor([timestep]))  # type: ignore[attr-defined]
    return float(noisy.mean())


def test_the_samplers_own_add_noise_is_a_trap(loaded: LoadedPipeline) -> None:
    # Why `noise_scheduler` is not the pipeline's scheduler. If diffusers mends this, the class may go.
    sampler = type(loaded.pipeline.scheduler).from_config(loaded.pipeline.scheduler.config)
    assert noise_share(sampler, 999) < noise_share(sampler, 0)


def test_models_are_frozen_and_in_evaluation_mode(loaded: LoadedPipeline) -> None:
    for part in (loaded.denoiser, loaded.pipeline.vae, loaded.pipeline.text_encoder):
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())


def test_two_names_of_one_weight_are_refused(pipeline_folder: Path) -> None:
    own = load_pipeline(pipeline_folder)
    own.denoiser.conv_in.bias = own.denoiser.time_embedding.linear_1.bias
    with pytest.raises(WeightsError, match=r"time_embedding\.linear_1\.bias and conv_in\.bias are one weight"):
        replace(own)


def test_prompts_are_embedded_one_by_one(loaded: LoadedPipeline) -> None:
    prompts = ["a red seven", "", "a blue two"]
    together = loaded.encode_prompts(prompts).encoder_hidden_states
    assert together.shape == (3, 12, 16)
    alone = concatenate(loaded.encode_prompts([prompt]) for prompt in prompts).encoder_hidden_states
    assert_near(together, alone, 1e-5)


def test_a_weight_file_replaces_what_it_names_and_nothing_else(
    pipeline_folder: Path, loaded: LoadedPipeline, tmp_path: Path
) -> None:
    before = trainable_tensors(loaded.pipeline)
    name, encoder = "unet.conv_in.bias", "text_encoder.text_model.final_layer_norm.bias"
    encoder = encoder if encoder in before else next(n for n in before if n.startswith("text_encoder."))
    changed = {n: before[n].detach() + 1 for n in (name, encoder)}
    save_weights(tmp_path / "weights.safetensors", changed)
    after = trainable_tensors(load_pipeline(pipeline_folder, tmp_path / "weights.safetensors").pipeline)
    assert after.keys() == before.keys()
    for n in after:
        assert torch.equal(after[n], changed.get(n, before[n])), n
