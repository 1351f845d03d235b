"""Trace, Frobenius norm and displacements of quadratic losses, whose answers are closed forms, in float64."""

import math

import numpy as np
import pytest
import torch

from resalign.bilevel.hvp import Mode
from resalign.tensors.params import Params
from resalign.tensors.steps import DivergenceError
from resalign.theory import sharpness as measure
from resalign.theory.sharpness import Estimate, ExampleLosses, FrozenLoss
from tests.bilevel.problems import SIZE, Vector, named, quadratic, symmetric
from tests.nearness import assert_near

RNG = np.random.default_rng(3)
POINT, SHIFT = RNG.normal(size=(2, SIZE))
# Negative trace, as a negated loss has it.
EIGENVALUES = np.array([-9.0, -4.0, -1.0, -0.2, 0.1, 0.5, 2.0])
HESSIAN = symmetric(EIGENVALUES)
TRACE, FROBENIUS = -11.6, float((EIGENVALUES**2).sum())
MODES: tuple[Mode, ...] = ("exact", "finite_difference")


def example_losses(*parts: tuple[Vector, Vector]) -> ExampleLosses:
    """One example's loss for each (Hessian, centre)."""
    losses = [quadratic(*part) for part in parts]
    return lambda weights: torch.stack([loss(weights) for loss in losses])


def frozen(hessian: Vector, centre: Vector = POINT) -> FrozenLoss:
    return FrozenLoss([example_losses((hessian, centre))])


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- trace and norm -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_diagonal_hessian_is_exact_whatever_the_probes(mode: Mode) -> None:
    found = measure.sharpness(frozen(np.diag(EIGENVALUES)), named(POINT), 2, stream(), mode=mode)
    assert found.trace.mean == pytest.approx(TRACE, rel=1e-6)
    assert found.frobenius_squared.mean == pytest.approx(FROBENIUS, rel=1e-6)
    assert_near(found.trace.standard_error, 0, 1e-7, scale=TRACE)
    assert_near(found.frobenius_squared.standard_error, 0, 1e-7, scale=FROBENIUS)
    assert (found.size, found.trace.n) == (SIZE, 2)


@pytest.mark.parametrize("mode", MODES)
def test_a_full_hessian_is_met_within_its_own_standard_errors(mode: Mode) -> None:
    found = measure.sharpness(frozen(HESSIAN, SHIFT), named(POINT), 400, stream(), mode=mode)
    assert abs(found.trace.mean - TRACE) < 3 * found.trace.standard_error
    assert abs(found.frobenius_squared.mean - FROBENIUS) < 3 * found.frobenius_squared.standard_error
    # The errors are small enough that a wrong factor is outside them, and of the size that Hutchinson has.
    expected = math.sqrt(2 * (FROBENIUS - (np.diag(HESSIAN) ** 2).sum()) / 400)
    assert found.trace.standard_error == pytest.approx(expected, rel=0.15)
    assert 10 * found.trace.standard_error < abs(TRACE)
    assert 10 * found.frobenius_squared.standard_error < FROBENIUS
    assert found.gradient_norm == pytest.approx(np.linalg.norm(HESSIAN @ (POINT - SHIFT)))


def test_batches_are_one_loss() -> None:
    parts = [(c * HESSIAN, c * SHIFT) for c in (0.5, 1.0, 2.0, -1.0)]
    whole = FrozenLoss([example_losses(*parts)])
    halves = FrozenLoss([example_losses(*parts[:2]), example_losses(*parts[2:])])
    one, other = (measure.sharpness(loss, named(POINT), 3, stream()) for loss in (whole, halves))
    assert other.trace.mean == pytest.approx(one.trace.mean)
    assert other.frobenius_squared.mean == pytest.approx(one.frobenius_squared.mean)
    assert other.gradient_norm == pytest.approx(one.gradient_norm)
    assert other.loss == one.loss
    assert one.loss.n == 4


def test_equal_streams_are_equal_probes_and_progress_sees_each() -> None:
    seen: list[int] = []

    def progress(probes: range) -> range:
        seen.extend(probes)
        return probes

    runs = [measure.sharpness(frozen(HESSIAN), named(POINT), 3, stream(5), progress=progress) for _ in range(2)]
    assert runs[0] == runs[1]
    assert seen == [0, 1, 2] * 2
    assert measure.sharpness(frozen(HESSIAN), named(POINT), 3, stream(6)).trace != runs[0].trace


def test_estimate_is_a_mean_with_its_error() -> None:
    found = Estimate.of(torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64), what="x")
    assert (found.mean, found.n) == (3.0, 3)
    assert found.standard_error == pytest.approx(math.sqrt(7 / 3))
    assert math.isnan(Estimate.of(torch.tensor([1.0]), what="x").standard_error)
    with pytest.raises(DivergenceError, match="x: .*nan"):
        Estimate.of(torch.tensor([1.0, math.nan]), what="x")


# --- displacements ------------------------------------------------------------------------------------------------


def test_the_prediction_is_half_the_mean_square_times_the_trace() -> None:
    found = measure.sharpness(frozen(np.diag(EIGENVALUES)), named(POINT), 2, stream())
    expected = measure.predicted(found, 0.5)
    assert expected.mean == pytest.approx(0.25 / (2 * SIZE) * TRACE)  # σ²/2d
    wide = measure.sharpness(frozen(HESSIAN), named(POINT), 5, stream())
    assert measure.predicted(wide, 0.5).standard_error == pytest.approx(0.25 / 14 * wide.trace.standard_error)


def test_isotropic_displacements_meet_the_prediction_on_a_quadratic() -> None:
    """Far from its stationary point: the gradient's part must be gone, or it would drown the curvature's."""
    found = measure.isotropic_change(frozen(HESSIAN, POINT + 100), named(POINT), 0.5, 400, stream(1))
    goal = 0.25 / (2 * SIZE) * TRACE
    assert abs(found.mean - goal) < 3 * found.standard_error
    assert 8 * found.standard_error < abs(goal)
    assert found.n == 400


def test_isotropic_displacements_of_an_affine_loss_change_nothing() -> None:
    def affine(weights: Params) -> torch.Tensor:
        return 1e3 * torch.cat([weights[name].reshape(-1) for name in weights]).sum().reshape(1)

    found = measure.isotropic_change(FrozenLoss([affine]), named(POINT), 0.5, 5, stream())
    assert_near(found.mean, 0, 1e-13, scale=1e3 * np.abs(POINT).sum())  # the loss's own terms


@pytest.mark.parametrize("mode", MODES)
def test_a_quadratic_is_its_first_two_terms(mode: Mode) -> None:
    loss, point, displacement = frozen(HESSIAN, np.zeros(SIZE)), named(POINT), named(SHIFT)
    linear, curved = measure.taylor_terms(loss, point, displacement, mode)
    assert linear == pytest.approx(POINT @ HESSIAN @ SHIFT)
    assert curved == pytest.approx(SHIFT @ HESSIAN @ SHIFT / 2, rel=1e-6)
    assert measure.change(loss, point, displacement).mean == pytest.approx(linear + curved, rel=1e-6)


def test_a_change_has_the_error_of_its_examples_own_differences() -> None:
    """Two examples of very different losses, equally changed: the paired error is 0."""
    far = 1000 * np.ones(SIZE)

    def examples(weights: Params) -> torch.Tensor:
        value = quadratic(HESSIAN, np.zeros(SIZE))(weights)
        return torch.stack([value, value + 1e3])

    found = measure.change(FrozenLoss([examples]), named(far), named(SHIFT))
    # The differences are of losses that are sums of such terms.
    assert_near(found.standard_error, 0, 1e-12, scale=np.linalg.norm(HESSIAN) * (far @ far))
    assert found.n == 2
    assert found.mean == pytest.approx((far + SHIFT / 2) @ HESSIAN @ SHIFT)


def test_a_slice_runs_from_the_point_along_the_displacement() -> None:
    parts = [(HESSIAN, np.zeros(SIZE)), (3 * HESSIAN, SHIFT)]
    loss = FrozenLoss([example_losses(*parts)])
    positions = (-0.5, 0.0, 1.5)
    found = measure.loss_slice(loss, named(POINT), named(SHIFT), positions)
    before = [0.5 * (POINT - c) @ h @ (POINT - c) for h, c in parts]
    for position, (value, change) in zip(positions, found, strict=True):
        at = POINT + position * SHIFT
        each = np.array([0.5 * (at - c) @ h @ (at - c) for h, c in parts])
        assert value.mean == pytest.approx(each.mean())
        assert value.standard_error == pytest.approx(each.std(ddof=1) / math.sqrt(2))
        assert change.mean == pytest.approx((each - before).mean(), abs=1e-12)
        assert change.standard_error == pytest.approx((each - before).std(ddof=1) / math.sqrt(2), abs=1e-12)
