"""What noise makes of latents, for every kind of target, against the formulas."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from resalign.diffusion.forward_process import clean_and_noise, difference, forward_process_in, noised
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.lazy import diffusers
from resalign.tensors.weights import WeightsError
from tests.nearness import assert_near
from tests.pipelines import KINDS

every_kind = pytest.mark.parametrize("pipeline_kind", KINDS, indirect=True, scope="session")
POSITIONS = torch.tensor([0, 250, 999])


def draw() -> tuple[torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(0)
    latents, noise = torch.randn((2, 3, 4, 8, 8), generator=stream)
    return latents, noise


@every_kind
def test_against_the_formulas(pipeline_kind: str, loaded: LoadedPipeline) -> None:
    scheduler = loaded.noise_scheduler
    latents, noise = draw()
    noisy, timesteps, target = noised(scheduler, latents, noise, POSITIONS)
    if pipeline_kind == "stable_diffusion_3":
        share = (POSITIONS + 1) / 1000  # of time, which a shift of 3 moves towards noise
        sigma = (3 * share / (1 + 2 * share))[:, None, None, None]
        assert_near(noisy, (1 - sigma) * latents + sigma * noise, 1e-6)
        assert_near(timesteps, 1000 * sigma.flatten(), 1e-6)
        assert_near(target, noise - latents, 1e-6)
        return
    alpha = scheduler.alphas_cumprod[POSITIONS].sqrt()[:, None, None, None]
    sigma = (1 - scheduler.alphas_cumprod[POSITIONS]).sqrt()[:, None, None, None]
    assert_near(noisy, alpha * latents + sigma * noise, 1e-6)
    assert torch.equal(timesteps, POSITIONS)
    expected = alpha * noise - sigma * latents if pipeline_kind == "v_prediction" else noise
    assert_near(target, expected, 1e-6)


@every_kind
def test_a_perfect_prediction_leads_back_to_the_latents(pipeline_kind: str, loaded: LoadedPipeline) -> None:
    """One step of the pipeline's own sampler from full noise: sign and scale of the target are the sampler's."""
    sampler = loaded.pipeline.scheduler
    scheduler = sampler.from_config(sampler.config, timestep_spacing="trailing")  # one step of others begins at 0
    latents, noise = draw()
    noisy, _, target = noised(loaded.noise_scheduler, latents, noise, torch.full((3,), 999))
    scheduler.set_timesteps(1)
    t = scheduler.timesteps[0]
    given = noisy
    if pipeline_kind == "stable_diffusion_xl":  # Euler's samples are scaled by 1/√ᾱ
        given = noisy / loaded.noise_scheduler.alphas_cumprod[999].sqrt()
    found = scheduler.step(target, t, given).prev_sample
    assert torch.corrcoef(torch.stack([found.flatten(), latents.flatten()]))[0, 1] > 0.99


@every_kind
def test_a_prediction_tells_latents_and_noise(pipeline_kind: str, loaded: LoadedPipeline) -> None:
    """Of the target those that it was made of; of any other prediction what diffusers' own schedulers make of it."""
    latents, noise = draw()
    noisy, timesteps, target = noised(loaded.noise_scheduler, latents, noise, POSITIONS)
    clean, found = clean_and_noise(loaded.noise_scheduler, noisy, timesteps, target)
    assert_near(clean, latents, 1e-5)
    assert_near(found, noise, 1e-5)
    if pipeline_kind == "stable_diffusion_3":
        return
    sampler = diffusers.DDIMScheduler.from_config(loaded.noise_scheduler.config, clip_sample=False)
    sampler.set_timesteps(1000)
    other = torch.randn(noise.shape, generator=torch.Generator().manual_seed(1))
    clean, _ = clean_and_noise(loaded.noise_scheduler, noisy, timesteps, other)
    for row, t in enumerate(timesteps):
        expected = sampler.step(other[row], t, noisy[row]).pred_original_sample
        assert_near(clean[row], expected, 1e-5)


@every_kind
def test_sampling_leaves_the_forward_process_alone(loaded: LoadedPipeline) -> None:
    latents, noise = draw()
    before = noised(loaded.noise_scheduler, latents, noise, POSITIONS)
    loaded.pipeline("a red seven", num_inference_steps=2, output_type="latent")
    after = noised(loaded.noise_scheduler, latents, noise, POSITIONS)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@every_kind
def test_a_folders_settings_tell_what_its_pipeline_has(pipeline_folder: Path, loaded: LoadedPipeline) -> None:
    assert difference(forward_process_in(pipeline_folder), loaded.noise_scheduler) is None


def scheduler_folder(folder: Path, scheduler: Any, **changes: Any) -> Path:
    scheduler.save_pretrained(folder / "scheduler")
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder


@pytest.mark.parametrize(
    ("one", "other", "what"),
    [
        (diffusers.DDIMScheduler(), diffusers.PNDMScheduler(), None),  # samplers of one process
        (diffusers.DDIMScheduler(), diffusers.DDIMScheduler(prediction_type="v_prediction"), "epsilon.*v_prediction"),
        (diffusers.DDIMScheduler(), diffusers.DDIMScheduler(beta_end=0.012), "amounts of noise"),
        (diffusers.DDIMScheduler(), diffusers.DDIMScheduler(rescale_betas_zero_snr=True), "amounts of noise"),
        (diffusers.DDIMScheduler(), diffusers.FlowMatchEulerDiscreteScheduler(), "flow"),
        (
            diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0),
            diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
            "amounts of noise",
        ),
    ],
)
def test_what_is_one_process_and_what_is_not(tmp_path: Path, one: Any, other: Any, what: str | None) -> None:
    found = difference(
        forward_process_in(scheduler_folder(tmp_path / "one", one)),
        forward_process_in(scheduler_folder(tmp_path / "other", other)),
    )
    assert found is None if what is None else re.search(what, found or "")


@pytest.mark.parametrize(
    ("scheduler", "changes", "message"),
    [
        (diffusers.FlowMatchHeunDiscreteScheduler(), {}, "noise schedule of FlowMatchHeunDiscreteScheduler"),
        (diffusers.EDMEulerScheduler(), {}, "noise schedule of EDMEulerScheduler"),
        (diffusers.DDIMScheduler(), {"prediction_type": "sample"}, "predicts 'sample'"),
    ],
)
def test_a_process_that_is_not_known_is_refused(
    tmp_path: Path, scheduler: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        forward_process_in(scheduler_folder(tmp_path, scheduler, **changes))
