"""LCFDSD: as released it is fine-tuning on clean images; with a gradient the contrast is bounded and right."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.objectives.denoising import denoising_loss
from resalign.tensors.params import Params, add, detached, gradient, norm, scaled
from resalign.unlearning import lcfdsd
from resalign.unlearning._descent import Logged, descend, of_loss
from tests.nearness import assert_near, differing
from tests.weight_names import of_denoiser

# As many clean images as harmful ones: half of each batch is empty slots, and a factor of 1/2 changes no bit.
SMALL = {"batch_size": 2, "retain_batch_size": 2, "steps": 3}
MANY = 10**18  # images in a mean, so that one more moves it by no bit
SGD = {"optimizer": "sgd", "weight_decay": 0.0, "max_grad_norm": None}


def parsed(**settings: Any) -> lcfdsd.Config:
    return lcfdsd.Config.parse({**SMALL, **settings}, where="test")


def trained(loaded: LoadedPipeline, data: UnlearningData, **settings: Any) -> tuple[dict[str, torch.Tensor], Run]:
    """All weights after a run, and the run."""
    run = Run(0)
    changed = lcfdsd.unlearn(loaded, data, parsed(**settings), run)
    return {**named_weights(loaded.denoiser), **of_denoiser(loaded, changed)}, run


def centres_of(loaded: LoadedPipeline, value: float = 0.5) -> lcfdsd.Centres:
    return lcfdsd.Centres(torch.full((2, *loaded.latent_shape), value), torch.ones(2, dtype=torch.long))


# --- as released ------------------------------------------------------------------------------------------------------


def test_detached_lt_is_fine_tuning_on_the_clean_images(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    def clean(weights: Params, stream: torch.Generator) -> tuple[torch.Tensor, Logged]:
        batch = unlearning_data.retain.draw(2, stream)
        unlearning_data.forget.draw(2, stream)
        return denoising_loss(loaded.denoiser, weights, batch), {}

    original = named_weights(loaded.denoiser)
    expected = descend(original, original, of_loss(clean), parsed(**SGD, lr=0.005), Run(0), method="lcfdsd")
    found, run = trained(loaded, unlearning_data, **SGD, lr=0.01, contrast="detached", contrast_weight=1e6)
    assert not differing(found, expected)
    assert differing(found, original)
    assert run.history.last("contrast") != 0  # it is told, and is no part of the direction


def test_ng_shifts_the_noise_and_keeps_the_target(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    """x_t of the noise n + 1 where clean and n − 1 where harmful, as diffusers adds noise; the target is n's."""
    images, config = unlearning_data.retain, parsed(variant="ng")
    rows, positions = torch.arange(4), torch.tensor([0, 250, 600, 999])
    batch = images.at(rows, positions, Run(0).generator("t"))
    noise = torch.randn(batch.target.shape, generator=Run(0).generator("t"))
    for kind, shift in ((lcfdsd.CLEAN, 1.0), (lcfdsd.HARMFUL, -1.0)):
        shifted = lcfdsd.noise_shifted(loaded, batch, kind, config)
        expected = loaded.noise_scheduler.add_noise(images.latents[rows], noise + shift, positions)
        assert_near(shifted.noisy_latents, expected, 1e-6)
        assert torch.equal(shifted.target, batch.target)
    assert torch.equal(lcfdsd.noise_shifted(loaded, batch, 0, parsed()).noisy_latents, batch.noisy_latents)


# --- the centres ------------------------------------------------------------------------------------------------------


def test_a_centre_is_the_mean_of_its_start_and_of_all_it_was_given() -> None:
    stream = torch.Generator().manual_seed(0)
    start, seen = torch.rand((2, 4, 8, 8), generator=stream), torch.randn((5, 4, 8, 8), generator=stream)
    centres = lcfdsd.Centres(start.clone(), torch.ones(2, dtype=torch.long))
    for count, y in enumerate(seen, 1):
        own, other = centres.include(1, y)
        np.testing.assert_allclose(own, np.concatenate([start[[1]], seen[:count]]).mean(axis=0), atol=1e-6)
        assert torch.equal(other, start[0])
    centres.restart_after(6)
    assert centres.counts.tolist() == [1, 6]
    centres.restart_after(5)  # what was learnt so far counts as one image from now on
    before = centres.means[1].clone()
    own, _ = centres.include(1, seen[0])
    assert_near(own, (before + seen[0]) / 2, 1e-6)


def test_an_epoch_ends_after_its_steps(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    centres, leaves = centres_of(loaded), detached(named_weights(loaded.denoiser), requires_grad=True)
    direction, counts = lcfdsd.contrastive_gradient(loaded, unlearning_data, parsed(epoch_steps=2), centres), []
    for _ in range(4):
        direction(leaves, leaves, Run(0).generator("t"))
        counts.append(centres.counts.tolist())
    assert counts == [[3, 3], [5, 5], [3, 3], [5, 5]]


# --- the contrast -----------------------------------------------------------------------------------------------------


def test_the_contrast_is_bounded_by_the_distance_of_the_centres() -> None:
    for seed in range(50):
        y, own, other = 10 ** (seed % 5) * torch.randn((3, 4, 8, 8), generator=torch.Generator().manual_seed(seed))
        assert abs(lcfdsd.contrast_of(y, own, other, 1.0)) <= (own - other).norm() * (1 + 1e-5)
        assert lcfdsd.contrast_of(own, own, other, 1.0) == -(own - other).norm()  # the least is at the own centre


@pytest.mark.parametrize("pipeline_kind", ["stable_diffusion", "v_prediction"], indirect=True, scope="session")
@pytest.mark.parametrize("variant", ["lt", "ng"])
@pytest.mark.parametrize("kind", [lcfdsd.CLEAN, lcfdsd.HARMFUL])
def test_the_contrasts_gradient_by_finite_differences(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, variant: str, kind: int
) -> None:
    """In the network's prediction, in float64, at centres that stay: no gradient goes through those that move."""
    batch = unlearning_data.forget.at(torch.arange(3), torch.tensor([5, 400, 990]), Run(0).generator("t"))
    batch = replace(batch, noisy_latents=batch.noisy_latents.double())
    config = parsed(variant=variant, offset=3.0)
    fixed = centres_of(loaded)
    settled = lcfdsd.Centres(fixed.means.double(), torch.full((2,), MANY))
    settled.means[1] += 2.0
    prediction = torch.randn(batch.target.shape, generator=Run(0).generator("p"), dtype=torch.float64)

    def value(output: torch.Tensor) -> torch.Tensor:
        return lcfdsd.contrasts(loaded, batch, output, kind, config, settled)

    assert torch.autograd.gradcheck(value, prediction.requires_grad_(), eps=1e-4, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("variant", ["lt", "ng"])
def test_descent_of_the_contrast_parts_clean_from_harmful(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, variant: str
) -> None:
    """Centres far apart: a step brings y of both kinds nearer its own; the direction is not that of fine-tuning."""
    leaves = detached(named_weights(loaded.denoiser), requires_grad=True)

    def step(weights: Params, contrast: str) -> tuple[Params, Logged]:
        centres = lcfdsd.Centres(centres_of(loaded).means, torch.full((2,), MANY))
        centres.means[lcfdsd.HARMFUL] *= -1
        config = parsed(variant=variant, offset=0.0, contrast=contrast, contrast_weight=1.0, epoch_steps=MANY)
        gradient_at = lcfdsd.contrastive_gradient(loaded, unlearning_data, config, centres)
        return gradient_at(weights, weights, Run(0).generator("t"))

    (whole, before), (plain, same) = step(leaves, "differentiable"), step(leaves, "detached")
    assert before == pytest.approx(same)
    contrast = add(whole, plain, -1.0)
    assert norm(contrast) > 1e-3 * norm(plain)
    moved = detached(add(leaves, contrast, -0.01 / norm(contrast)), requires_grad=True)
    _, after = step(moved, "differentiable")
    assert after["contrast"] - before["contrast"] == pytest.approx(-0.01 * norm(contrast), rel=0.1)


def test_no_contrast_is_half_of_the_clean_loss_and_no_steps_change_nothing(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    leaves = detached(named_weights(loaded.denoiser), requires_grad=True)
    config = parsed(contrast_weight=0.0)
    found, _ = lcfdsd.contrastive_gradient(loaded, unlearning_data, config, centres_of(loaded))(
        leaves, leaves, Run(0).generator("t")
    )
    batch = unlearning_data.retain.draw(2, Run(0).generator("t"))
    assert_near(found, scaled(gradient(denoising_loss(loaded.denoiser, leaves, batch), leaves), 0.5), 1e-6)
    assert not differing(trained(loaded, unlearning_data, steps=0)[0], named_weights(loaded.denoiser))


def test_the_weight_of_the_contrast_is_the_variants(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    for variant, published in (("lt", 5e-5), ("ng", 5e-3)):
        one, other = (
            trained(loaded, unlearning_data, variant=variant, contrast_weight=weight)[0] for weight in (None, published)
        )
        assert not differing(one, other)
