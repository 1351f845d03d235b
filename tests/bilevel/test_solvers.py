"""Solvers of A x = b against numpy.linalg.solve, in float64."""

import importlib
import math
import pkgutil
from collections.abc import Callable

import numpy as np
import pytest
import torch

from resalign.bilevel import solvers
from resalign.bilevel.solution import Solution
from resalign.bilevel.solvers import identity, richardson
from resalign.config.strict import ConfigError
from resalign.tensors.named import Named

from .problems import SIZE, Vector, named, stacked, symmetric, vector

RHS = np.random.default_rng(3).normal(size=SIZE)


class Product:
    """v ↦ (I + γH) v, counted."""

    def __init__(self, curvature: Vector) -> None:
        self.matrix = np.eye(SIZE) + curvature
        self.calls = 0

    def __call__(self, v: Named) -> dict[str, torch.Tensor]:
        self.calls += 1
        return named(self.matrix @ vector(v))


def run(curvature: Vector, rhs: Vector = RHS, **settings: float) -> tuple[Solution, Product]:
    matvec = Product(curvature)
    return richardson.solve(matvec, named(rhs), richardson.Config.parse(settings, where="test")), matvec


def relative_error(found: Solution, curvature: Vector, rhs: Vector = RHS) -> float:
    exact = np.linalg.solve(np.eye(SIZE) + curvature, rhs)
    return float(np.linalg.norm(vector(found.x) - exact) / np.linalg.norm(exact))


# --- every solver -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [m.name for m in pkgutil.iter_modules(solvers.__path__)])
class TestEverySolver:
    @pytest.fixture
    def solve(self, name: str) -> Callable[..., Solution]:
        module = importlib.import_module(f"resalign.bilevel.solvers.{name}")
        return lambda matvec, rhs: module.solve(matvec, rhs, module.Config())

    def test_identity_is_solved_exactly(self, solve: Callable[..., Solution]) -> None:
        found = solve(Product(np.zeros((SIZE, SIZE))), named(RHS))
        np.testing.assert_array_equal(vector(found.x), RHS)
        assert found.relative_residual == 0 or math.isnan(found.relative_residual)

    def test_shapes_names_and_dtype_are_those_of_the_right_hand_side(self, solve: Callable[..., Solution]) -> None:
        rhs = named(RHS)
        found = solve(Product(symmetric(np.full(SIZE, 0.3))), rhs)
        assert {n: (t.shape, t.dtype) for n, t in found.x.items()} == {n: (t.shape, t.dtype) for n, t in rhs.items()}

    def test_zero_right_hand_side_gives_zero_and_no_nan(self, solve: Callable[..., Solution]) -> None:
        found = solve(Product(symmetric(np.full(SIZE, 0.3))), named(np.zeros(SIZE)))
        np.testing.assert_array_equal(vector(found.x), np.zeros(SIZE))
        assert found.relative_residual == 0 or math.isnan(found.relative_residual)

    def test_nan_stays_visible(self, solve: Callable[..., Solution]) -> None:
        found = solve(Product(symmetric(np.full(SIZE, 0.3))), named(np.r_[math.nan, RHS[1:]]))
        assert not torch.isfinite(stacked(found.x)).all()
        assert math.isnan(found.relative_residual)

    def test_right_hand_side_is_left_alone(self, solve: Callable[..., Solution]) -> None:
        rhs = named(RHS)
        solve(Product(symmetric(np.full(SIZE, 0.3))), rhs)
        np.testing.assert_array_equal(vector(rhs), RHS)

    def test_products_are_counted(self, solve: Callable[..., Solution]) -> None:
        matvec = Product(symmetric(np.full(SIZE, 0.3)))
        assert solve(matvec, named(RHS)).products == matvec.calls


# --- identity ---------------------------------------------------------------------------------------------------------


def test_first_order_uses_no_product() -> None:
    matvec = Product(symmetric(np.full(SIZE, 0.3)))
    found = identity.solve(matvec, named(RHS), identity.Config())
    assert matvec.calls == 0
    np.testing.assert_array_equal(vector(found.x), RHS)


# --- richardson -------------------------------------------------------------------------------------------------------


def test_positive_definite_to_convergence() -> None:
    curvature = symmetric(np.linspace(0.05, 0.9, SIZE))
    found, _ = run(curvature, steps=400)
    assert relative_error(found, curvature) < 1e-8
    assert found.relative_residual < 1e-8


def test_indefinite_within_the_radius_converges() -> None:
    curvature = symmetric(np.linspace(-0.9, 0.9, SIZE))
    found, _ = run(curvature, steps=400)
    assert relative_error(found, curvature) < 1e-8


def test_outside_the_radius_the_residual_says_so() -> None:
    found, _ = run(symmetric(np.linspace(0.1, 1.5, SIZE)), steps=40)
    assert found.relative_residual > 1


def test_a_singular_system_does_not_pass_for_solved() -> None:
    # γλ = −1: A has a null space that the right-hand side does not avoid.
    found, _ = run(symmetric(np.r_[-1.0, np.full(SIZE - 1, 0.2)]), steps=50)
    assert found.relative_residual > 0.05


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("omega", [1.0, 0.5, 0.3])
def test_residual_and_iterate_are_numpys(steps: int, omega: float) -> None:
    curvature = symmetric(np.linspace(-0.4, 0.8, SIZE))
    found, _ = run(curvature, steps=steps, relaxation=omega)
    system, x = np.eye(SIZE) + curvature, np.zeros(SIZE)
    for _ in range(math.ceil(steps / omega)):
        x = x + omega * (RHS - system @ x)
    np.testing.assert_allclose(vector(found.x), x, rtol=1e-13)
    residual = np.linalg.norm(RHS - system @ x) / np.linalg.norm(RHS)
    assert found.relative_residual == pytest.approx(residual, rel=1e-12)


def test_the_first_iterate_is_the_right_hand_side() -> None:
    found, matvec = run(symmetric(np.full(SIZE, 0.3)), steps=1)
    np.testing.assert_array_equal(vector(found.x), RHS)
    assert matvec.calls == 1  # for the residual


def test_published_five_steps_cost_four_products_and_one_for_the_residual() -> None:
    assert richardson.Config().steps == 5
    found, matvec = run(symmetric(np.full(SIZE, 0.3)))
    assert (found.products, matvec.calls) == (4 + 1, 4 + 1)


def test_relaxation_raises_the_number_of_steps() -> None:
    curvature = symmetric(np.linspace(0.1, 0.5, SIZE))
    halved, matvec = run(curvature, steps=5, relaxation=0.5)
    assert matvec.calls == 10
    # With K kept at 5, (1 − ω)ᵏ of the solution would still be missing in the flat directions: 3 % and more.
    assert halved.relative_residual < 0.01


def test_relaxation_solves_what_full_steps_cannot() -> None:
    curvature = symmetric(np.linspace(0.5, 2.5, SIZE))
    assert run(curvature, steps=50)[0].relative_residual > 1
    damped, _ = run(curvature, steps=50, relaxation=0.5)
    assert relative_error(damped, curvature) < 1e-8


@pytest.mark.parametrize("settings", [{"steps": 0}, {"relaxation": 0.0}, {"relaxation": 1.5}, {"stepz": 5}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        richardson.Config.parse(settings, where="test")
