"""Noisy training batches against the forward process's own formula."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from resalign.contracts import Run
from resalign.data.images import DataError, read_captioned_images
from resalign.diffusion.batches import EncodedImages, encode
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.lazy import diffusers
from tests.nearness import assert_near

ALL = torch.arange(8)


def stream(seed: int = 0) -> torch.Generator:
    return Run(seed=seed).generator("test")


def alphas(images: EncodedImages, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """√ᾱ and √(1 − ᾱ), each (B, 1, 1, 1)."""
    cumulative = images.noise_scheduler.alphas_cumprod[timesteps][:, None, None, None]
    return cumulative.sqrt(), (1 - cumulative).sqrt()


def test_another_prediction_is_refused(encoded_images: EncodedImages) -> None:
    scheduler = diffusers.DDPMScheduler.from_config(encoded_images.noise_scheduler.config, prediction_type="sample")
    with pytest.raises(ValueError, match="'sample'.*'epsilon', 'v_prediction'"):
        replace(encoded_images, noise_scheduler=scheduler).at(ALL, torch.zeros(8, dtype=torch.long), stream())


def test_batches_are_a_function_of_their_stream_and_may_be_larger_than_the_set(encoded_images: EncodedImages) -> None:
    first, second, other = (encoded_images.draw(20, stream(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.noisy_latents, second.noisy_latents)
    assert not torch.equal(first.noisy_latents, other.noisy_latents)
    assert len(first.timesteps) == len(encoded_images.draw_stratified(20, stream()).timesteps) == 20


def test_timesteps_of_each_example_are_its_own_and_cover_the_schedule(encoded_images: EncodedImages) -> None:
    timesteps = torch.cat([encoded_images.draw(64, stream(seed)).timesteps for seed in range(8)])
    counts = torch.histc(timesteps.float(), bins=4, min=0, max=1000)
    assert counts.min() > 90  # 128 expected of 512 in each quarter, standard deviation 9.8


def test_stratified_batches_take_every_image_once_and_a_timestep_from_each_part(encoded_images: EncodedImages) -> None:
    for seed in range(5):
        batch = encoded_images.draw_stratified(8, stream(seed))
        assert (batch.timesteps // 125).tolist() == list(range(8))
        # Which image each example is: the one for which the noise that must have been added is the target.
        signal, sigma = alphas(encoded_images, batch.timesteps)
        clean = (batch.noisy_latents - sigma * batch.target) / signal
        distances = (clean[:, None] - encoded_images.latents[None]).flatten(2).norm(dim=2)
        assert sorted(distances.argmin(dim=1).tolist()) == list(range(8))


def test_every_image_keeps_its_own_prompt(
    loaded: LoadedPipeline, encoded_images: EncodedImages, image_folder: Path
) -> None:
    prompts = read_captioned_images(image_folder, pixels=16).prompts
    batch = encoded_images.at(ALL.flip(0), torch.full((8,), 500), stream())
    assert batch.prompts == prompts[::-1]
    expected = loaded.encode_prompts(prompts[::-1]).encoder_hidden_states
    assert_near(batch.conditioning.encoder_hidden_states, expected, 1e-5)


def test_subset_keeps_image_and_prompt_together(encoded_images: EncodedImages) -> None:
    chosen = torch.tensor([5, 2])
    subset = encoded_images.subset(chosen)
    timesteps = torch.tensor([300, 700])
    whole, part = encoded_images.at(chosen, timesteps, stream()), subset.at(torch.arange(2), timesteps, stream())
    assert len(subset) == 2
    assert torch.equal(whole.noisy_latents, part.noisy_latents)
    assert torch.equal(whole.conditioning.encoder_hidden_states, part.conditioning.encoder_hidden_states)
    assert whole.prompts == part.prompts


def test_encoding_is_a_function_of_its_stream(
    loaded: LoadedPipeline, image_folder: Path, encoded_images: EncodedImages
) -> None:
    images = read_captioned_images(image_folder, pixels=16)
    again, other = (encode(loaded, images, Run(seed=seed).generator("encode")) for seed in (0, 1))
    assert torch.equal(again.latents, encoded_images.latents)
    assert not torch.equal(other.latents, encoded_images.latents)


def test_a_pair_has_one_draw_of_images_and_timesteps_and_two_of_noise(encoded_images: EncodedImages) -> None:
    one, other = encoded_images.draw_pair(6, stream())
    assert torch.equal(one.noisy_latents, encoded_images.draw(6, stream()).noisy_latents)
    assert torch.equal(one.timesteps, other.timesteps)
    assert one.prompts == other.prompts
    assert not torch.equal(one.target, other.target)
    (signal, sigma), clean = alphas(encoded_images, one.timesteps), []
    for batch in (one, other):
        clean.append((batch.noisy_latents - sigma * batch.target) / signal)
    assert_near(clean[0], clean[1], 1e-4)


def test_flipped_images_are_further_images(
    loaded: LoadedPipeline, image_folder: Path, encoded_images: EncodedImages
) -> None:
    images = read_captioned_images(image_folder, pixels=16)
    found = encode(loaded, images, Run(seed=0).generator("encode"), with_flips=True, sampled="anew")
    means, _ = loaded.posterior(images.load().flip(-1))
    assert found.prompts == images.prompts * 2
    assert_near(found.latents[8:], means, 1e-5)


def test_latents_that_are_sampled_anew_have_the_posteriors_moments(
    loaded: LoadedPipeline, image_folder: Path, encoded_images: EncodedImages
) -> None:
    images = read_captioned_images(image_folder, pixels=16)
    found = encode(loaded, images, stream(), sampled="anew")
    assert found.stds is not None
    least = torch.zeros(8, dtype=torch.long)  # hardly any noise is added there
    chosen = found.subset(ALL.flip(0))
    drawn = torch.stack([chosen.at(ALL, least, stream(seed)).noisy_latents for seed in range(200)])
    signal, sigma = alphas(found, least)
    spread = ((signal * found.stds.flip(0)) ** 2 + sigma**2).sqrt()
    # Each of some 2,000 means of 200 is within six of its standard errors, each variance within ten.
    assert ((drawn.mean(0) - signal * found.latents.flip(0)) / spread).abs().max() < 6 / 200**0.5
    assert ((drawn.var(0) / spread**2) - 1).abs().max() < 10 * (2 / 199) ** 0.5
    assert (found.stds > 3 * sigma / signal).float().mean() > 0.9, "the autoencoder's spread is what is seen"


def test_images_of_another_size_than_the_models_are_refused(loaded: LoadedPipeline, image_folder: Path) -> None:
    images = read_captioned_images(image_folder, pixels=8)
    with pytest.raises(DataError, match="the model has 16 pixels, the images are read at 8; set pixels"):
        encode(loaded, images, stream())
