"""Images from keyed noise: what may move a pixel, and what must not."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from resalign.contracts import Run
from resalign.data.prompts import Prompt
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.diffusion.sampling import partial_sample, sample_images
from resalign.tensors.steps import DivergenceError
from tests.nearness import assert_near

PROMPTS = [
    Prompt(f"p{index}", text) for index, text in enumerate(("a red seven", "a blue two", "nothing at all", "a dog"))
]
WANTED = [(prompt, index) for prompt in PROMPTS for index in range(4)]  # 16 images
SETTINGS = {"sampling_seed": 42, "num_inference_steps": 4, "guidance_scale": 2.5}


def sample(loaded: LoadedPipeline, wanted: list[tuple[Prompt, int]] = WANTED, **settings: float) -> torch.Tensor:
    return sample_images(loaded, wanted, **{**SETTINGS, **settings})  # type: ignore[arg-type]


def largest_difference(first: torch.Tensor, second: torch.Tensor) -> int:
    return int((first.int() - second.int()).abs().max())


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images(loaded: LoadedPipeline) -> torch.Tensor:
    """All sixteen in one batch."""
    return sample(loaded)


def test_images_are_pixels_of_different_pictures(images: torch.Tensor) -> None:
    assert images.shape == (16, 3, 16, 16)
    assert images.dtype == torch.uint8
    assert images.float().std() > 10, "the tiny model paints grey; these tests would be empty"
    assert all(largest_difference(images[0], image) > 20 for image in images[1:])


def test_batch_order_and_threads_play_no_part(loaded: LoadedPipeline, images: torch.Tensor) -> None:
    assert torch.equal(sample(loaded), images)
    alone = torch.cat([sample(loaded, [wanted]) for wanted in WANTED])
    assert largest_difference(alone, images) <= 1
    assert largest_difference(sample(loaded, WANTED[::-1]).flip(0), images) <= 1
    with threads(2):  # few images: threads that wait for each other are slow where the tests use every core
        assert largest_difference(sample(loaded, WANTED[:1]), images[:1]) <= 1


def test_noise_is_keyed_by_the_prompts_id_not_by_its_text(loaded: LoadedPipeline, images: torch.Tensor) -> None:
    renamed = sample(loaded, [(Prompt("other", PROMPTS[0].text), 0)])
    assert largest_difference(renamed[0], images[0]) > 20


@pytest.mark.parametrize("settings", [{"sampling_seed": 43}, {"guidance_scale": 7.5}, {"num_inference_steps": 5}])
def test_every_setting_counts(loaded: LoadedPipeline, images: torch.Tensor, settings: dict[str, float]) -> None:
    assert largest_difference(sample(loaded, WANTED[:1], **settings)[0], images[0]) > 1


def test_the_prompts_text_counts(loaded: LoadedPipeline, images: torch.Tensor) -> None:
    other = sample(loaded, [(Prompt("p0", "a blue two"), 0)], guidance_scale=7.5)
    assert largest_difference(other, sample(loaded, WANTED[:1], guidance_scale=7.5)) > 0


def test_diverged_weights_are_noticed(pipeline_folder, loaded: LoadedPipeline) -> None:  # type: ignore[no-untyped-def]
    from resalign.diffusion.loaded_pipeline import load_pipeline

    broken = load_pipeline(pipeline_folder)
    next(iter(broken.denoiser.parameters())).data.fill_(float("nan"))
    with pytest.raises(DivergenceError, match="diverged"):
        sample(broken, WANTED[:1])


# --- partial samples --------------------------------------------------------------------------------------------------


def partial(loaded: LoadedPipeline, seed: int = 0, **changed: object) -> tuple[torch.Tensor, torch.Tensor]:
    concept = loaded.encode_prompts(["a red seven"]).expand(3)
    arguments = {
        "weights": named_weights(loaded.denoiser),
        "conditioning": concept,
        "unconditional": loaded.unconditional(3),
        "guidance_scale": 3.0,
        "num_inference_steps": 5,
        "generator": Run(seed=seed).generator("partial"),
    }
    return partial_sample(loaded, **{**arguments, **changed})  # type: ignore[arg-type]


def test_timesteps_are_the_samplers_and_cover_it(loaded: LoadedPipeline) -> None:
    from resalign.lazy import diffusers

    scheduler = diffusers.DDIMScheduler.from_config(loaded.noise_scheduler.config)
    scheduler.set_timesteps(5)
    found = set()
    for seed in range(40):
        latents, timesteps = partial(loaded, seed)
        assert latents.shape == (3, 4, 8, 8)
        assert timesteps.shape == (3,)
        assert len(set(timesteps.tolist())) == 1
        found.add(int(timesteps[0]))
    assert found == set(scheduler.timesteps.tolist())


def test_before_the_first_step_it_is_noise(loaded: LoadedPipeline) -> None:
    seed = next(s for s in range(40) if int(partial(loaded, s)[1][0]) > 790)
    latents, _ = partial(loaded, seed)
    expected = torch.randn(latents.shape, generator=Run(seed=seed).generator("partial"))
    assert torch.equal(latents, expected)


def test_exact_latents_have_the_noise_of_their_timestep(
    loaded: LoadedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (6, 4, 8, 8)  # of three examples, with and without the prompt
    noise = torch.randn(shape[1:], generator=Run(0).generator("noise")).expand(shape)
    monkeypatch.setattr("resalign.diffusion.sampling.predict", lambda *_: noise)
    abar = loaded.noise_scheduler.alphas_cumprod
    ends = set()
    for seed in range(12):
        start = torch.randn((3, 4, 8, 8), generator=Run(seed=seed).generator("partial"))
        latents, timesteps = partial(loaded, seed, exact=True)
        # Under one prediction of noise the image in it stays, x₀ = (x_t − √(1 − ᾱ)ε) / √ᾱ at every noise level.
        first = 4 * 200 + loaded.noise_scheduler.config.get("steps_offset", 0)
        image = (start - (1 - abar[first]).sqrt() * noise[:3]) / abar[first].sqrt()
        level = abar[timesteps[0]]
        assert_near(latents, level.sqrt() * image + (1 - level).sqrt() * noise[:3], 1e-5, scale=image)
        ends.add(int(timesteps[0]))
    assert len(ends) > 2


def test_every_argument_counts(loaded: LoadedPipeline) -> None:
    seed = next(s for s in range(40) if int(partial(loaded, s)[1][0]) < 210)  # four steps have been taken
    latents, _ = partial(loaded, seed)
    assert torch.equal(partial(loaded, seed)[0], latents)
    moved = {n: t + 0.02 for n, t in named_weights(loaded.denoiser).items()}
    other = loaded.encode_prompts(["a blue two"]).expand(3)
    for changed in ({"weights": moved}, {"conditioning": other}, {"unconditional": other}, {"guidance_scale": 9.0}):
        assert not torch.equal(partial(loaded, seed, **changed)[0], latents), changed.keys()
    # Guidance 1 ignores the empty prompt.
    first, second = (partial(loaded, seed, guidance_scale=1.0, **c)[0] for c in ({}, {"unconditional": other}))
    assert_near(first, second, 1e-4)
