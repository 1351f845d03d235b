"""Solvers of (I + γH) x = g against NumPy, in float64."""

import importlib
import math
import pkgutil
from typing import Any

import numpy as np
import pytest
import torch

from resalign.bilevel import solvers
from resalign.bilevel.solution import Example, Solution, System
from resalign.bilevel.solvers import fisher, nystrom
from resalign.bilevel.solving import FAMILY, solve
from resalign.config import registry
from resalign.config.strict import ConfigError
from resalign.tensors.params import Params
from resalign.tensors.steps import DivergenceError
from tests.nearness import assert_near

from .problems import SIZE, Vector, named, symmetric, vector

RHS = np.random.default_rng(3).normal(size=SIZE)
GAMMA = 0.5
NAMES = [
    module.name for module in pkgutil.iter_modules(solvers.__path__) if module.name != "fisher"
]  # it needs examples
# How each solver is told to take its time; a new solver runs at its defaults.
PATIENT: dict[str, dict[str, Any]] = {
    "richardson": {"steps": 400, "rtol": 1e-12},
    "richardson_printed": {"steps": 400},
    "neumann": {"terms": 400},
    "fixed_point": {"steps": 400},
    "conjugate_gradient": {"steps": 30, "rtol": 1e-12},
    "minres": {"steps": 30, "rtol": 1e-12},
}
EXACT = ("richardson", "neumann", "fixed_point", "conjugate_gradient", "minres")


class Hessian:
    """v ↦ Hv with γH = ``curvature``, counted."""

    def __init__(self, curvature: Vector, gamma: float = GAMMA) -> None:
        self.matrix, self.calls = curvature / gamma, 0

    def __call__(self, v: Params) -> dict[str, torch.Tensor]:
        self.calls += 1
        return named(self.matrix @ vector(v))


def run(
    name: str, curvature: Vector, rhs: Vector = RHS, *, gamma: float = GAMMA, **settings: Any
) -> tuple[Solution, Hessian]:
    """One solve of (I + curvature) x = rhs."""
    module = importlib.import_module(f"resalign.bilevel.solvers.{name}")
    hvp = Hessian(curvature, gamma)
    return module.solve(System(hvp, named(rhs), gamma), module.Config.parse(settings, where="test")), hvp


def dense(curvature: Vector, rhs: Vector = RHS) -> Vector:
    solution: Vector = np.linalg.solve(np.eye(SIZE) + curvature, rhs)
    return solution


def relative_error(found: Solution, expected: Vector) -> float:
    return float(np.linalg.norm(vector(found.x) - expected) / np.linalg.norm(expected))


def residual(found: Solution, curvature: Vector, rhs: Vector = RHS) -> float:
    left = rhs - (np.eye(SIZE) + curvature) @ vector(found.x)
    return float(np.linalg.norm(left) / np.linalg.norm(rhs))


DEFINITE = symmetric(np.linspace(0.05, 0.9, SIZE))
SMALL_INDEFINITE = symmetric(np.linspace(-0.9, 0.9, SIZE))  # H is indefinite, I + γH is not
INDEFINITE = symmetric(np.linspace(-3.2, 2.0, SIZE))
SINGULAR = symmetric(np.r_[-1.0, np.linspace(0.2, 0.8, SIZE - 1)])


@pytest.mark.parametrize("name", NAMES)
class TestEverySolver:
    def test_no_curvature_leaves_the_right_hand_side(self, name: str) -> None:
        found, _ = run(name, np.zeros((SIZE, SIZE)), gamma=1.0)
        assert_near(vector(found.x), RHS, 1e-14)
        assert found.relative_residual < 1e-14 or found.state == "first_order"

    def test_zero_right_hand_side_gives_zero_and_no_nan(self, name: str) -> None:
        found, _ = run(name, DEFINITE, np.zeros(SIZE))
        np.testing.assert_array_equal(vector(found.x), np.zeros(SIZE))
        assert (found.state, found.relative_residual) == ("converged", 0) or found.state == "first_order"

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_right_hand_side_that_is_not_finite_raises(self, name: str, value: float) -> None:
        with pytest.raises(DivergenceError, match="right-hand side"):
            run(name, DEFINITE, np.r_[value, RHS[1:]])

    def test_a_product_that_is_not_finite_is_never_called_converged(self, name: str) -> None:
        found, _ = run(name, np.full((SIZE, SIZE), math.nan))
        assert found.state in ("diverged", "first_order")
        assert math.isnan(found.relative_residual)

    def test_result_has_the_right_hand_sides_names_shapes_and_dtype_and_leaves_it_alone(self, name: str) -> None:
        rhs = named(RHS)
        module = importlib.import_module(f"resalign.bilevel.solvers.{name}")
        assert module.Config().name == name
        x = module.solve(System(Hessian(DEFINITE), rhs, GAMMA), module.Config()).x
        np.testing.assert_array_equal(vector(rhs), RHS)
        assert [(n, t.shape, t.dtype) for n, t in x.items()] == [(n, t.shape, t.dtype) for n, t in rhs.items()]

    @pytest.mark.parametrize("curvature", [DEFINITE, SMALL_INDEFINITE], ids=["definite", "indefinite"])
    def test_what_it_reports_is_true(self, name: str, curvature: Vector) -> None:
        found, hvp = run(name, curvature)
        assert found.products == hvp.calls == importlib.import_module(f"{solvers.__name__}.{name}").Config().products
        if found.state == "first_order":
            assert math.isnan(found.relative_residual)
            assert all(map(math.isnan, found.curvature))
            return
        assert found.relative_residual == pytest.approx(residual(found, curvature), rel=1e-8, abs=1e-12)
        spectrum = np.linalg.eigvalsh(curvature)
        low, high = found.curvature
        if name == "nystrom":
            assert math.isnan(low)
            assert math.isnan(high)
            return
        assert spectrum[0] - 1e-9 <= low <= high <= spectrum[-1] + 1e-9
        assert high - low > 0.5 * (spectrum[-1] - spectrum[0])  # five products see most of this spectrum


# --- what each solves -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("curvature", [DEFINITE, SMALL_INDEFINITE], ids=["definite", "indefinite"])
@pytest.mark.parametrize("name", EXACT)
def test_to_convergence(name: str, curvature: Vector) -> None:
    found, _ = run(name, curvature, **PATIENT[name])
    assert relative_error(found, dense(curvature)) < 1e-8
    assert found.relative_residual < 1e-8


@pytest.mark.parametrize("name", ["conjugate_gradient", "minres"])
def test_krylov_solvers_end_after_as_many_products_as_there_are_unknowns(name: str) -> None:
    found, _ = run(name, symmetric(np.linspace(0.5, 80.0, SIZE)), steps=30, rtol=1e-10)
    assert found.state == "converged"
    assert found.products == SIZE
    assert_near(found.curvature, (0.5, 80.0), 1e-9)


def test_minres_solves_an_indefinite_system() -> None:
    found, _ = run("minres", INDEFINITE, **PATIENT["minres"])
    assert relative_error(found, dense(INDEFINITE)) < 1e-8
    assert_near(found.curvature, (-3.2, 2.0), 1e-6)


def test_minres_never_leaves_zero_in_the_wrong_direction() -> None:
    residuals = [run("minres", INDEFINITE, steps=steps)[0].relative_residual for steps in range(1, SIZE + 1)]
    assert residuals == sorted(residuals, reverse=True)
    # The least residual of each Krylov space, by least squares.
    for steps, found in enumerate(residuals, start=1):
        matrix = np.eye(SIZE) + INDEFINITE
        space = np.stack([np.linalg.matrix_power(matrix, power) @ RHS for power in range(steps)], axis=1)
        best = np.linalg.lstsq(matrix @ space, RHS)[0]
        left = np.linalg.norm(RHS - matrix @ space @ best) / np.linalg.norm(RHS)
        assert found == pytest.approx(left, abs=1e-8)


def test_conjugate_gradients_raise_on_negative_curvature() -> None:
    with pytest.raises(
        DivergenceError, match=r"negative curvature at step \d.*γ 0\.5; lower gamma, or set solver: minres"
    ):
        run("conjugate_gradient", INDEFINITE, steps=30)


def test_a_singular_system_does_not_pass_for_solved() -> None:
    matrix = np.eye(SIZE) + SINGULAR
    least = np.linalg.lstsq(matrix, RHS, rcond=1e-12)[0]
    left = np.linalg.norm(RHS - matrix @ least) / np.linalg.norm(RHS)
    assert left > 0.01
    found, _ = run("minres", SINGULAR, steps=30, rtol=1e-8)
    assert found.relative_residual == pytest.approx(left, rel=1e-6)
    assert residual(found, SINGULAR) == pytest.approx(left, rel=1e-6)
    assert found.state == "max_steps"
    for name in ("richardson", "neumann", "conjugate_gradient"):
        assert run(name, SINGULAR, **PATIENT[name])[0].state != "converged"


@pytest.mark.parametrize("name", ["richardson", "neumann", "richardson_printed"])
def test_outside_its_radius_an_iteration_says_that_it_diverged(name: str) -> None:
    found, _ = run(name, symmetric(np.linspace(0.1, 2.5, SIZE)), gamma=1.0, **PATIENT[name])
    assert found.state == "diverged"
    assert not found.relative_residual <= 1


@pytest.mark.parametrize("rank", [1, 3])
def test_a_sketch_of_k_products_solves_what_has_no_more_than_k_positive_eigenvalues(rank: int) -> None:
    curvature = symmetric(np.r_[np.geomspace(0.3, 60.0, rank), np.zeros(SIZE - rank)])
    for sketch in (rank, SIZE):
        found, hvp = run("nystrom", curvature, sketch=sketch)
        assert hvp.calls == sketch + 1  # one for the residual
        assert relative_error(found, dense(curvature)) < 1e-8
        assert found.state == "converged"
    assert relative_error(run("nystrom", curvature, sketch=rank, sketch_seed=1)[0], dense(curvature)) < 1e-8


def test_a_sketch_that_does_not_see_a_flat_spectrum_of_both_signs_says_so() -> None:
    flat = symmetric(np.linspace(-0.5, 0.5, SIZE))
    found = [run("nystrom", flat, sketch=3, sketch_seed=seed)[0] for seed in range(50)]
    errors = [relative_error(solution, dense(flat)) for solution in found]
    assert np.median(errors) > 0.1
    assert max(errors) > 5
    for solution, error in zip(found, errors, strict=True):
        assert solution.relative_residual == pytest.approx(residual(solution, flat), rel=1e-8)
        # ‖A⁻¹‖ is 2 and ‖A‖ 1.5, A = I + γH: neither can be larger than three times the other.
        assert error / 3 <= solution.relative_residual <= 3 * error
        assert solution.state == ("diverged" if solution.relative_residual > 1 else "max_steps")
    assert {solution.state for solution in found} == {"diverged", "max_steps"}
    assert run("nystrom", flat, sketch=SIZE)[0].state == "converged"


def test_a_sketch_sees_negative_eigenvalues_of_a_low_rank_too_and_works_in_float32() -> None:
    curvature = symmetric(np.r_[-0.4, 0.7, 5.0, np.zeros(SIZE - 3)])
    assert relative_error(run("nystrom", curvature, sketch=3)[0], dense(curvature)) < 1e-8
    rhs, matrix = {n: t.float() for n, t in named(RHS).items()}, curvature / GAMMA

    def hvp(v: Params) -> dict[str, torch.Tensor]:
        return {n: t.float() for n, t in named(matrix @ vector(v)).items()}

    found = nystrom.solve(System(hvp, rhs, GAMMA), nystrom.Config(sketch=5))
    assert {t.dtype for t in found.x.values()} == {torch.float32}
    assert relative_error(found, dense(curvature)) < 1e-4


# --- the Fisher matrix ------------------------------------------------------------------------------------------------


def fisher_error(count: int, deviation: float) -> tuple[float, Solution]:
    """Of y = Wx + normal noise, W (2, 2) and a bias that does not matter, whose H is (2/d) E xxᵀ ⊗ I, d = 2."""
    rng = np.random.default_rng(5)
    inputs, noise = rng.normal(size=(count, 2)) * (1.0, 3.0), deviation * rng.normal(size=(count, 2))
    slopes = np.concatenate([np.einsum("ni,nj->nij", -noise, inputs).reshape(count, 4), np.zeros((count, 3))], axis=1)
    losses = (noise**2).mean(axis=1)
    examples = [Example(float(loss), named(s), 1 / count, 2) for loss, s in zip(losses, slopes, strict=True)]
    hessian = np.zeros((SIZE, SIZE))
    hessian[:4, :4] = np.kron(np.eye(2), np.diag([1.0, 9.0]))  # the expectation
    system = System(Hessian(GAMMA * hessian), named(RHS), GAMMA, lambda: examples)
    found = fisher.solve(system, fisher.Config())
    return relative_error(found, dense(GAMMA * hessian)), found


def test_the_fisher_matrix_becomes_the_hessian_of_a_linear_model_as_examples_become_many() -> None:
    runs = [fisher_error(count, 0.3) for count in (4, 400, 200_000)]  # fewer examples than weights, too
    assert runs[0][0] > runs[1][0] > runs[2][0]
    error, found = runs[2]
    assert error < 0.01
    assert found.state == "converged"
    assert found.products == fisher.Config().products == 1
    # Its scale is its own residual's: at a tenth of the noise the gradients are a tenth as long.
    assert fisher_error(2_000, 0.03)[0] == pytest.approx(fisher_error(2_000, 0.3)[0], rel=1e-6)


def test_the_fisher_matrix_of_few_examples_is_woodburys_inverse() -> None:
    rows, shares = np.random.default_rng(2).normal(size=(3, SIZE)), (0.5, 0.3, 0.2)
    losses, elements = (0.4, 1.0, 2.0), 5
    examples = [Example(loss, named(row), w, elements) for loss, row, w in zip(losses, rows, shares, strict=True)]
    matrix = sum(
        w * elements / (2 * loss) * np.outer(row, row) for loss, row, w in zip(losses, rows, shares, strict=True)
    )
    system = System(Hessian(GAMMA * matrix), named(RHS), GAMMA, lambda: examples)
    found = fisher.solve(system, fisher.Config())
    assert_near(vector(found.x), dense(GAMMA * matrix), 1e-12)
    assert found.relative_residual < 1e-12


def test_without_a_residual_or_examples_the_fisher_matrix_raises() -> None:
    perfect = [Example(0.0, named(np.zeros(SIZE)), 1.0, 2)]
    with pytest.raises(DivergenceError, match=r"has a loss of 0: .*solver: minres"):
        fisher.solve(System(Hessian(DEFINITE), named(RHS), GAMMA, lambda: perfect), fisher.Config())
    with pytest.raises(ValueError, match="needs the losses of single examples"):
        fisher.solve(System(Hessian(DEFINITE), named(RHS), GAMMA), fisher.Config())


# --- first order, Richardson, Neumann, Eq. 7 as printed ---------------------------------------------------------------


def test_first_order_uses_no_product() -> None:
    found, hvp = run("identity", DEFINITE)
    assert hvp.calls == 0
    np.testing.assert_array_equal(vector(found.x), RHS)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_richardson_iterates_equation_6_and_the_printed_solver_equation_7(gamma: float) -> None:
    hessian = SMALL_INDEFINITE / gamma
    x, printed = np.zeros(SIZE), np.zeros(SIZE)
    for steps in range(1, 6):
        x, printed = RHS - gamma * hessian @ x, (RHS - hessian @ printed) / gamma
        found, hvp = run("richardson", SMALL_INDEFINITE, gamma=gamma, steps=steps)
        assert_near(vector(found.x), x, 1e-12)
        assert hvp.calls == steps  # steps − 1 for x, one for the residual
        found, _ = run("richardson_printed", SMALL_INDEFINITE, gamma=gamma, steps=steps)
        assert_near(vector(found.x), printed, 1e-12)


@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_the_printed_iteration_solves_equation_6_at_gamma_1_only(gamma: float) -> None:
    found, _ = run("richardson_printed", gamma * DEFINITE, gamma=gamma, steps=400)
    assert relative_error(found, np.linalg.solve(gamma * np.eye(SIZE) + DEFINITE, RHS)) < 1e-8
    error = relative_error(found, dense(gamma * DEFINITE))
    assert error < 1e-8 if gamma == 1 else error > 0.2
    assert found.relative_residual < 1e-8 if gamma == 1 else found.relative_residual > 0.2


def test_relaxation_raises_the_number_of_steps_and_solves_what_full_steps_cannot() -> None:
    halved, hvp = run("richardson", symmetric(np.linspace(0.1, 0.5, SIZE)), steps=5, relaxation=0.5)
    assert hvp.calls == importlib.import_module(f"{solvers.__name__}.richardson").Config(relaxation=0.5).products == 10
    # With K kept at 5, (1 − ω)ᵏ of the solution would still be missing in the flat directions: 3 % and more.
    assert halved.relative_residual < 0.01
    curvature = symmetric(np.linspace(0.5, 2.5, SIZE))
    assert run("richardson", curvature, steps=50)[0].state == "diverged"
    assert relative_error(run("richardson", curvature, steps=50, relaxation=0.5)[0], dense(curvature)) < 1e-6


def test_a_truncated_series_keeps_its_number_of_terms() -> None:
    found, hvp = run("neumann", DEFINITE, terms=5, scale=0.5)
    assert hvp.calls == 5
    powers = [np.linalg.matrix_power(np.eye(SIZE) - 0.5 * (np.eye(SIZE) + DEFINITE), k) @ RHS for k in range(5)]
    assert_near(vector(found.x), 0.5 * np.sum(powers, axis=0), 1e-12)


@pytest.mark.parametrize("relaxation", [1.0, 0.5, 0.25])
def test_a_fixed_points_iterates_are_the_released_ones_until_one_grows(relaxation: float) -> None:
    curvature = symmetric(np.linspace(-0.3, 2.5, SIZE))
    jacobian = np.eye(SIZE) - relaxation * (np.eye(SIZE) + curvature)
    v, grew = np.zeros(SIZE), False
    for _ in range(5):
        parts = zip(named(jacobian @ v).values(), named(v).values(), strict=True)
        grew = grew or bool(v.any()) and np.mean([float(after.norm() / before.norm()) for after, before in parts]) > 1
        if grew:
            break
        v = jacobian @ v + RHS
    assert grew == (relaxation == 1)
    found, _ = run("fixed_point", curvature, relaxation=relaxation)
    assert (found.state == "diverged") == grew
    assert_near(vector(found.x), relaxation * v, 1e-12)
    if grew:
        without, hvp = run("fixed_point", curvature, relaxation=relaxation, max_amplification=None)
        assert hvp.calls == 5
        assert_near(vector(without.x), vector(run("richardson", curvature, steps=5)[0].x), 1e-12)


def test_a_tolerance_ends_a_solve_early() -> None:
    for name in ("richardson", "conjugate_gradient", "minres"):
        found, _ = run(name, DEFINITE, **{**PATIENT[name], "rtol": 1e-2})
        assert found.state == "converged"
        assert found.products < run(name, DEFINITE, **PATIENT[name])[0].products


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("richardson", {"steps": 0}),
        ("richardson", {"relaxation": 0.0}),
        ("richardson", {"relaxation": 1.5}),
        ("neumann", {"terms": 0}),
        ("minres", {"rtol": -1.0}),
        ("nystrom", {"sketch": 0}),
        ("conjugate_gradient", {"stepz": 5}),
    ],
)
def test_impossible_settings_are_refused(name: str, settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        run(name, DEFINITE, **settings)


@pytest.mark.parametrize("name", NAMES)
def test_a_solver_sees_one_tensor_and_finds_what_it_finds_by_name(name: str) -> None:
    own, hvp = run(name, SMALL_INDEFINITE)
    config = registry.config_class(FAMILY, name)()
    counted = Hessian(SMALL_INDEFINITE)
    found = solve(System(counted, named(RHS), GAMMA), config)
    assert list(found.x) == list(named(RHS))
    assert_near(vector(found.x), vector(own.x), 1e-12)
    assert (found.products, found.state, counted.calls) == (own.products, own.state, hvp.calls)


def test_richardsons_residual_of_the_iterate_before_saves_a_product() -> None:
    last, hvp = run("richardson", SMALL_INDEFINITE, steps=5)
    saved, fewer = run("richardson", SMALL_INDEFINITE, steps=5, residual="before")
    shorter, _ = run("richardson", SMALL_INDEFINITE, steps=4)
    np.testing.assert_array_equal(vector(saved.x), vector(last.x))
    assert saved.relative_residual == shorter.relative_residual != last.relative_residual
    assert (fewer.calls, saved.products, hvp.calls) == (4, 4, 5)
    alone, none = run("richardson", SMALL_INDEFINITE, steps=1, residual="before")
    np.testing.assert_array_equal(vector(alone.x), RHS)
    assert (none.calls, alone.relative_residual) == (0, 1.0)
