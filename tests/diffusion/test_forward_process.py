"""What noise makes of latents, for every kind of target, against the formulas."""

import pytest
import torch

from resalign.diffusion.forward_process import noised
from resalign.diffusion.models import Models
from tests.pipelines import KINDS

pytestmark = pytest.mark.parametrize("pipeline_kind", KINDS, indirect=True, scope="session")
POSITIONS = torch.tensor([0, 250, 999])


def draw() -> tuple[torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(0)
    latents, noise = torch.randn((2, 3, 4, 8, 8), generator=stream)
    return latents, noise


def test_against_the_formulas(pipeline_kind: str, models: Models) -> None:
    scheduler = models.noise_scheduler
    latents, noise = draw()
    noisy, timesteps, target = noised(scheduler, latents, noise, POSITIONS)
    if pipeline_kind == "stable_diffusion_3":
        share = (POSITIONS + 1) / 1000  # of time, which a shift of 3 moves towards noise
        sigma = (3 * share / (1 + 2 * share))[:, None, None, None]
        torch.testing.assert_close(noisy, (1 - sigma) * latents + sigma * noise, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(timesteps, 1000 * sigma.flatten(), rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(target, noise - latents)
        return
    alpha = scheduler.alphas_cumprod[POSITIONS].sqrt()[:, None, None, None]
    sigma = (1 - scheduler.alphas_cumprod[POSITIONS]).sqrt()[:, None, None, None]
    torch.testing.assert_close(noisy, alpha * latents + sigma * noise)
    assert torch.equal(timesteps, POSITIONS)
    expected = alpha * noise - sigma * latents if pipeline_kind == "v_prediction" else noise
    torch.testing.assert_close(target, expected)


def test_a_perfect_prediction_leads_back_to_the_latents(pipeline_kind: str, models: Models) -> None:
    """One step of the pipeline's own sampler from full noise: sign and scale of the target are the sampler's."""
    sampler = models.pipeline.scheduler
    scheduler = sampler.from_config(sampler.config, timestep_spacing="trailing")  # one step of others begins at 0
    latents, noise = draw()
    noisy, _, target = noised(models.noise_scheduler, latents, noise, torch.full((3,), 999))
    scheduler.set_timesteps(1)
    t = scheduler.timesteps[0]
    given = noisy
    if pipeline_kind == "stable_diffusion_xl":  # Euler's samples are scaled by 1/√ᾱ
        given = noisy / models.noise_scheduler.alphas_cumprod[999].sqrt()
    found = scheduler.step(target, t, given).prev_sample
    assert torch.corrcoef(torch.stack([found.flatten(), latents.flatten()]))[0, 1] > 0.99


def test_sampling_leaves_the_forward_process_alone(models: Models) -> None:
    latents, noise = draw()
    before = noised(models.noise_scheduler, latents, noise, POSITIONS)
    models.pipeline("a red seven", num_inference_steps=2, output_type="latent")
    after = noised(models.noise_scheduler, latents, noise, POSITIONS)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
