"""Every known kind of pipeline: loaded whole, embedded and sampled as diffusers itself does it, refused by name."""

import json
from pathlib import Path

import pytest
import torch

from resalign.config import registry
from resalign.config.strict import ConfigError
from resalign.contracts import check_architecture
from resalign.data.prompts import Prompt
from resalign.diffusion.architectures import ARCHITECTURES, NAMES, architecture_in
from resalign.diffusion.batches import EncodedImages
from resalign.diffusion.loaded_pipeline import LoadedPipeline, check_pipeline_folder, load_pipeline, trainable_tensors
from resalign.diffusion.noise import initial_noise
from resalign.diffusion.parametrisation import lora, named_weights, select
from resalign.diffusion.prediction import predict
from resalign.diffusion.sampling import sample_images, sample_latents
from resalign.tensors.weights import WeightsError
from tests.nearness import assert_near
from tests.pipelines import KINDS, PIXELS, WITH_T5

pytestmark = pytest.mark.parametrize("pipeline_kind", [*KINDS, WITH_T5], indirect=True, scope="session")


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_images_are_those_of_the_pipeline_itself(loaded: LoadedPipeline, guidance_scale: float) -> None:
    prompts = [(Prompt("a", "a red seven"), 0), (Prompt("b", "a blue two"), 0)]
    found = sample_images(loaded, prompts, sampling_seed=3, num_inference_steps=3, guidance_scale=guidance_scale)
    noise = initial_noise([("a", 0), ("b", 0)], 3, loaded.latent_shape)
    texts = {"prompt": ["a red seven", "a blue two"], "num_inference_steps": 3, "guidance_scale": guidance_scale}
    expected = loaded.pipeline(**texts, latents=noise, output_type="pt").images
    assert found.shape == (2, 3, PIXELS, PIXELS)
    assert (found.float() / 255 - expected.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-5


def test_latents_are_what_the_pipelines_own_images_are_decoded_from(loaded: LoadedPipeline) -> None:
    """Scaled as training takes them, with noise from the generator alone."""
    texts, settings = ["a red seven", "a blue two"], {"num_inference_steps": 3, "guidance_scale": 4.0}
    latents = sample_latents(loaded, texts, torch.Generator().manual_seed(3), **settings)
    noise = torch.randn((2, *loaded.latent_shape), generator=torch.Generator().manual_seed(3))
    images = loaded.pipeline(prompt=texts, latents=noise, output_type="pt", **settings).images
    vae = loaded.pipeline.vae
    with torch.no_grad():
        decoded = vae.decode(latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)).sample
    assert_near((decoded / 2 + 0.5).clamp(0, 1), images, 1e-4)
    assert images.std() > 0.05


def test_a_prediction_depends_on_all_that_the_network_is_told(
    loaded: LoadedPipeline, encoded_images: EncodedImages
) -> None:
    weights = named_weights(loaded.denoiser)
    batch = encoded_images.at(torch.tensor([0]), torch.tensor([500]), torch.Generator().manual_seed(0))
    before = predict(loaded.denoiser, weights, batch)
    told = batch.conditioning
    for tensor in (told.encoder_hidden_states, *told.added.values()):
        moved = tensor.clone()
        moved.view(-1)[0] += 5
        tensor_before = tensor.clone()
        tensor.copy_(moved)
        assert not torch.equal(predict(loaded.denoiser, weights, batch), before)
        tensor.copy_(tensor_before)
    assert torch.equal(predict(loaded.denoiser, weights, batch), before)


def test_what_can_be_trained_has_its_components_name(loaded: LoadedPipeline) -> None:
    assert len(set(NAMES)) == len({a.pipeline for a in ARCHITECTURES}) == len(ARCHITECTURES)
    components = {name.split(".")[0] for name in trainable_tensors(loaded.pipeline)}
    present = {name for name in loaded.architecture.trainable if getattr(loaded.pipeline, name) is not None}
    assert components == present
    assert set(loaded.named(named_weights(loaded.denoiser))) <= set(trainable_tensors(loaded.pipeline))


def test_low_rank_changes_have_attention_to_adapt(loaded: LoadedPipeline) -> None:
    weights = named_weights(loaded.denoiser)
    assert set(lora(weights, 2).names) <= set(select(weights, "attention"))
    if loaded.architecture.name == "stable_diffusion_3":  # joint attention: nothing of it is cross-attention
        for scope in ("cross_attention", "not_cross_attention"):
            with pytest.raises(ValueError, match=f"no weights in scope '{scope}'"):
                select(weights, scope)  # type: ignore[arg-type]
    else:
        parts = [set(select(weights, scope)) for scope in ("cross_attention", "not_cross_attention")]  # type: ignore[arg-type]
        assert parts[0] | parts[1] == set(weights)
        assert not parts[0] & parts[1]


def test_latents_are_scaled_as_the_pipeline_decodes_them(loaded: LoadedPipeline) -> None:
    vae = loaded.pipeline.vae
    images = torch.rand((2, 3, PIXELS, PIXELS), generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = loaded.encode_images(images, torch.Generator().manual_seed(1))
    posterior = vae.encode(images).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(1))
    unscaled = found / vae.config.scaling_factor + (vae.config.shift_factor or 0)
    assert_near(unscaled, posterior.mean + posterior.std * noise, 1e-5)


def test_methods_fail_by_name_on_what_they_do_not_support(loaded: LoadedPipeline) -> None:
    for family in ("unlearning", "attacks"):
        for name in registry.members(family):
            member = registry.member(family, name)
            supported = getattr(member, "ARCHITECTURES", NAMES)
            assert set(supported) <= set(NAMES)
            if loaded.architecture.name in supported:
                check_architecture(member, loaded.architecture.name)
            else:
                with pytest.raises(ConfigError, match=f"'{name}' supports .* the model is {loaded.architecture.name}"):
                    check_architecture(member, loaded.architecture.name)


def test_a_missing_encoder_is_refused_unless_the_family_allows_it(pipeline_folder: Path, tmp_path: Path) -> None:
    architecture, _ = architecture_in(pipeline_folder)
    for name in architecture.text_encoders:
        if name in architecture.without:
            continue
        copy = tmp_path / name
        copy.mkdir()
        for path in pipeline_folder.iterdir():
            if path.name != name:
                (copy / path.name).symlink_to(path)
        with pytest.raises(WeightsError, match=rf"{name}: no model\.safetensors"):
            check_pipeline_folder(copy)


def test_a_pipeline_of_another_kind_is_refused_by_name(pipeline_folder: Path, tmp_path: Path) -> None:
    index = json.loads((pipeline_folder / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps({**index, "_class_name": "StableDiffusionXLPipelin"}))
    with pytest.raises(WeightsError, match=r"no support for pipeline 'StableDiffusionXLPipelin'.*StableDiffusionXL"):
        load_pipeline(tmp_path)
