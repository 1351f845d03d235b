"""Spectral shifts against the formula, in matrices and convolutions."""

import pytest
import torch

from resalign.attacks import svdiff
from resalign.contracts import AttackData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from tests.nearness import assert_near

from .recorded import attacked


def test_no_shift_gives_the_model_back(loaded: LoadedPipeline) -> None:
    matrices = {name: weight for name, weight in named_weights(loaded.denoiser).items() if weight.dim() > 1}
    assert {weight.dim() for weight in matrices.values()} == {2, 4}
    for weight in matrices.values():
        spectrum = svdiff.Spectrum.of(weight)
        assert torch.equal(spectrum.shifted(torch.zeros_like(spectrum.values)), weight)
        product = (spectrum.left * spectrum.values) @ spectrum.right
        assert_near(product.reshape(weight.shape), weight, 1e-5, scale=spectrum.values)


@pytest.mark.parametrize("shape", [(3, 5), (6, 2), (4, 3, 3, 3)])
def test_shifts_move_singular_values_and_nothing_else(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    left, values, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    shift = torch.randn(values.shape, generator=generator, dtype=torch.float64)
    shift[-1] = -2 * values[-1]  # no singular value may fall below 0
    expected = left @ torch.diag((values + shift).clamp(min=0)) @ right
    found = svdiff.Spectrum.of(weight).shifted(shift)
    assert_near(found, expected.reshape(shape), 1e-12, scale=values)


def test_an_attack_keeps_singular_vectors_and_one_dimensional_weights(
    loaded: LoadedPipeline, attack_data: AttackData
) -> None:
    saved = attacked(svdiff, loaded, attack_data, steps=3, lr=0.05).denoiser
    original = named_weights(loaded.denoiser)
    assert saved.keys() == {name for name, weight in original.items() if weight.dim() > 1}
    for name, weight in saved.items():
        left, values, right = torch.linalg.svd(original[name].flatten(1), full_matrices=False)
        core = left.T @ weight.flatten(1) @ right.T
        outside = core - torch.diag(core.diag())
        assert_near(outside, torch.zeros_like(outside), 1e-5, scale=values)
        assert (core.diag() - values).abs().max() > 0.01
