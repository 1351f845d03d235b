"""Hessian-vector products, exact and by finite differences, against NumPy, in float64."""

import copy

import numpy as np
import pytest
import torch

from resalign.bilevel.hvp import Hessian, Mode, hessian_vector_product
from resalign.diffusion.batches import EncodedImages, NoisyBatch
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.objectives.denoising import denoising_loss
from resalign.tensors.losses import Loss
from resalign.tensors.params import Params, add, dot, norm
from tests.nearness import assert_near

from .problems import SIZE, Vector, named, quadratic, stacked, symmetric, vector

RNG = np.random.default_rng(7)
HESSIAN = symmetric(np.linspace(-1.0, 2.0, SIZE))
POINT, DIRECTION, OTHER = RNG.normal(size=(3, SIZE))
MODES: tuple[Mode, ...] = ("exact", "finite_difference")
# The quartic ½ θᵀHθ + ¼ Σ θ⁴: its Hessian H + 3 diag(θ²) changes from point to point.
QUARTIC_HESSIAN = HESSIAN + 3 * np.diag(POINT**2)


def quartic(weights: Params) -> torch.Tensor:
    return quadratic(HESSIAN, np.zeros(SIZE))(weights) + 0.25 * (stacked(weights) ** 4).sum()


CASES = [(quadratic(HESSIAN, OTHER), HESSIAN), (quartic, QUARTIC_HESSIAN)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("loss", "hessian"), CASES, ids=["quadratic", "quartic"])
def test_product_is_numpys_and_leaves_its_arguments_alone(loss: Loss, hessian: Vector, mode: Mode) -> None:
    point, direction = named(POINT), named(DIRECTION)
    found = hessian_vector_product(loss, point, direction, mode=mode)
    assert_near(vector(found), hessian @ DIRECTION, 1e-6)
    np.testing.assert_array_equal(vector(point), POINT)
    np.testing.assert_array_equal(vector(direction), DIRECTION)
    assert not any(tensor.requires_grad for tensors in (point, direction, found) for tensor in tensors.values())


@pytest.mark.parametrize("mode", MODES)
def test_symmetric(mode: Mode) -> None:
    first, second = (hessian_vector_product(quartic, named(POINT), named(v), mode=mode) for v in (DIRECTION, OTHER))
    scale = np.linalg.norm(OTHER) * np.linalg.norm(vector(first))
    assert_near(OTHER @ vector(first), DIRECTION @ vector(second), 1e-6, scale=scale)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e6])
def test_linear_whatever_the_vectors_length(mode: Mode, scale: float) -> None:
    found = hessian_vector_product(quartic, named(POINT), named(scale * DIRECTION), mode=mode)
    assert_near(vector(found) / scale, QUARTIC_HESSIAN @ DIRECTION, 1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_zero_vector_gives_zero(mode: Mode) -> None:
    found = hessian_vector_product(quartic, named(POINT), named(np.zeros(SIZE)), mode=mode)
    np.testing.assert_array_equal(vector(found), np.zeros(SIZE))


@pytest.mark.parametrize("mode", MODES)
def test_a_loss_without_curvature_gives_zero(mode: Mode) -> None:
    def loss(weights: Params) -> torch.Tensor:
        return (stacked(weights) * torch.from_numpy(OTHER)).sum()

    found = hessian_vector_product(loss, named(POINT), named(DIRECTION), mode=mode)
    assert_near(vector(found), np.zeros(SIZE), 1e-9, scale=OTHER)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("rows", "block"), [("weight", slice(0, 4)), ("bias", slice(4, 7))])
def test_blocks(mode: Mode, rows: str, block: slice) -> None:
    # Columns of the three biases: ∂²L/∂rows∂bias times a direction in bias only.
    point, direction = named(POINT), {"bias": named(DIRECTION)["bias"]}
    wrt = None if rows == "bias" else {rows: point[rows]}
    found = hessian_vector_product(quartic, point, direction, mode=mode, wrt=wrt)
    assert list(found) == [rows]
    assert_near(vector(found), QUARTIC_HESSIAN[block, 4:] @ DIRECTION[4:], 1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_float32_is_good_to_three_digits(mode: Mode) -> None:
    single = [{n: t.float() for n, t in named(v).items()} for v in (POINT, DIRECTION)]

    def loss(weights: Params) -> torch.Tensor:
        v = stacked(weights)
        return 0.5 * v @ torch.from_numpy(HESSIAN).float() @ v + 0.25 * (v**4).sum()

    found = vector(hessian_vector_product(loss, *single, mode=mode))
    expected = QUARTIC_HESSIAN @ DIRECTION
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-3


@pytest.mark.parametrize("mode", MODES)
def test_nan_stays_visible(mode: Mode) -> None:
    found = hessian_vector_product(quartic, named(POINT), named(np.r_[np.nan, DIRECTION[1:]]), mode=mode)
    assert np.isnan(vector(found)).any()


@pytest.mark.parametrize(("mode", "calls"), [("exact", 1), ("finite_difference", 5)])
def test_products_share_one_graph(mode: Mode, calls: int) -> None:
    points: list[Params] = []

    def loss(weights: Params) -> torch.Tensor:
        points.append(weights)
        return quartic(weights)

    point = named(POINT)
    hessian = Hessian(loss, point, ["bias"], mode=mode)
    assert not points
    for direction in (DIRECTION, OTHER):
        found = hessian.product({"bias": named(direction)["bias"]})
        again = hessian_vector_product(quartic, point, {"bias": named(direction)["bias"]}, mode=mode)
        assert torch.equal(found["bias"], again["bias"])
    slope = hessian.gradient()
    assert_near(vector(slope), (HESSIAN @ POINT + POINT**3)[4:], 1e-12)
    assert not slope["bias"].requires_grad
    assert len(points) == calls
    assert not any(weights["weight"].requires_grad for weights in points)  # nothing is kept for what is held constant
    np.testing.assert_array_equal(vector(point), POINT)
    assert not any(tensor.requires_grad for tensor in point.values())


# --- a diffusion model's UNet -----------------------------------------------------------------------------------------


def unet_case(loaded: LoadedPipeline, images: EncodedImages, dtype: torch.dtype) -> tuple[Loss, Params, Params, Params]:
    """The denoising loss of the tiny UNet on a frozen batch, its weights, and two random directions."""
    unet = copy.deepcopy(loaded.denoiser).to(dtype)
    batch = images.draw_stratified(4, torch.Generator().manual_seed(0))
    batch = NoisyBatch(
        batch.noisy_latents.to(dtype),
        batch.timesteps,
        batch.conditioning.to(dtype),
        batch.target.to(dtype),
    )
    weights, generator = named_weights(unet), torch.Generator().manual_seed(1)
    draws = [
        {n: torch.randn(t.shape, generator=generator, dtype=torch.float64).to(dtype) for n, t in weights.items()}
        for _ in range(2)
    ]
    return lambda w: denoising_loss(unet, w, batch), weights, *draws


# Measured: 5e-10 and 3.4e-4.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-3)], ids=str)
def test_products_agree_on_a_unet(
    loaded: LoadedPipeline, encoded_images: EncodedImages, dtype: torch.dtype, tolerance: float
) -> None:
    loss, weights, direction, _ = unet_case(loaded, encoded_images, dtype)
    exact, difference = (hessian_vector_product(loss, weights, direction, mode=mode) for mode in MODES)
    assert norm(add(difference, exact, -1.0)) < tolerance * norm(exact)


def test_products_of_one_graph_have_the_bits_of_their_own(
    loaded: LoadedPipeline, encoded_images: EncodedImages
) -> None:
    loss, weights, *directions = unet_case(loaded, encoded_images, torch.float32)
    hessian = Hessian(loss, weights, weights)
    for direction in (*directions, directions[0]):
        found, own = hessian.product(direction), hessian_vector_product(loss, weights, direction)
        assert all(torch.equal(found[name], own[name]) for name in own)


@pytest.mark.parametrize("mode", MODES)
def test_symmetric_on_a_unet(loaded: LoadedPipeline, encoded_images: EncodedImages, mode: Mode) -> None:
    loss, weights, first, second = unet_case(loaded, encoded_images, torch.float64)
    left, right = (hessian_vector_product(loss, weights, v, mode=mode) for v in (first, second))
    scale = norm(second) * norm(left)
    assert abs(float(dot(second, left) - dot(first, right))) < 1e-6 * scale
    assert norm(left) > 0
