"""The linear model of concept resurgence: closed forms against automatic differentiation, least squares and by hand."""

import math

import pytest
import torch

from resalign.config.strict import ConfigError
from resalign.config.theory import LinearModelConfig
from resalign.theory import linear_model as linear
from resalign.theory.linear_model import Geometry, Problem
from resalign.theory.linear_model_grid import grid
from tests.nearness import assert_near

SMALL = LinearModelConfig(
    dimension=6,
    subspaces=((1, 1), (2, 1), (1, 2)),
    overlaps=(0.0, 0.3, 1.0),
    curvatures=(0.2, 4.0),
    positions=(50, 900),
)
IDENTITY = torch.eye(6, dtype=torch.float64)
ALPHA = 0.7


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def general_problem() -> Problem:
    """Subspaces and data that stand in no special relation."""
    concept, supervision = (torch.linalg.qr(random(6, 2, seed=seed)).Q for seed in (1, 2))
    root = random(6, 6, seed=3)
    space = Geometry(concept, supervision, root @ root.T + IDENTITY)
    drawn = linear.examples(space.covariance, ALPHA, 50, torch.Generator().manual_seed(4))
    return Problem(space, ALPHA, *drawn)


PROBLEM = general_problem()


def population_loss(weight: torch.Tensor) -> torch.Tensor:
    """E‖Wx − ε‖² = tr(WΣ_tWᵀ) − 2√(1 − α) tr(W) + d, written down anew."""
    moment = ALPHA * PROBLEM.space.covariance + (1 - ALPHA) * IDENTITY
    return (weight @ moment @ weight.T).trace() - 2 * math.sqrt(1 - ALPHA) * weight.trace() + 6


def assert_equal(found: torch.Tensor, expected: torch.Tensor, scale: torch.Tensor | None = None) -> None:
    """In float64, up to what the solves of least squares lose."""
    assert_near(found, expected, 1e-10, scale=scale)


# --- examples -------------------------------------------------------------------------------------------------------


def test_examples_have_the_populations_second_moments() -> None:
    count = len(PROBLEM.noise)
    assert_equal(PROBLEM.noise.T @ PROBLEM.noise / count, IDENTITY)
    assert_equal(PROBLEM.noisy.T @ PROBLEM.noisy / count, PROBLEM.moment)
    assert_equal(PROBLEM.noise.T @ PROBLEM.noisy / count, math.sqrt(1 - ALPHA) * IDENTITY)


def test_the_examples_loss_is_the_populations() -> None:
    weight = random(6, 6, seed=5)
    assert linear.linear_loss(weight, PROBLEM.noisy, PROBLEM.noise).item() == pytest.approx(
        population_loss(weight).item()
    )


def test_the_schedule_is_stable_diffusions() -> None:
    shares = linear.signal_shares(LinearModelConfig())
    assert shares[0].item() == pytest.approx(1 - 0.00085)
    assert shares[-1].item() == pytest.approx(0.00466, abs=1e-5)  # alphas_cumprod[-1] of the released scheduler
    assert len(shares) == 1000


# --- gradients and updates ------------------------------------------------------------------------------------------


def test_the_closed_gradient_is_that_of_the_examples_and_of_the_population() -> None:
    start = PROBLEM.unlearned.clone().requires_grad_()
    [expected] = torch.autograd.grad(population_loss(start), start)
    assert_equal(PROBLEM.gradient(), expected)
    assert_equal(PROBLEM.simulated_gradient(PROBLEM.unlearned), expected)


def test_what_was_unlearned_is_gone_and_the_gradient_brings_it_back() -> None:
    """P_C W₀ = 0, so that P_C ∇L = −2 √(1 − α) P_C, whatever the data."""
    forgets = PROBLEM.space.forgets
    assert_equal(forgets @ PROBLEM.unlearned, torch.zeros_like(IDENTITY), PROBLEM.unlearned)
    assert PROBLEM.unlearned.norm() > 0.1
    assert_equal(forgets @ PROBLEM.gradient(), -2 * math.sqrt(1 - ALPHA) * forgets)


def test_a_free_newton_step_ends_at_the_optimum() -> None:
    step = PROBLEM.newton(IDENTITY)
    assert_equal(PROBLEM.unlearned + step, PROBLEM.optimum)
    assert_equal(PROBLEM.simulated_gradient(PROBLEM.optimum), torch.zeros_like(IDENTITY), PROBLEM.gradient())
    assert_equal(step, -PROBLEM.gradient() @ torch.linalg.inv(2 * PROBLEM.moment))


def test_a_newton_step_in_a_subspace_leaves_no_gradient_there() -> None:
    for subspace in (PROBLEM.space.supervision, PROBLEM.space.concept):
        step = PROBLEM.newton(subspace)
        assert_equal(step @ subspace @ subspace.T, step)
        left = PROBLEM.simulated_gradient(PROBLEM.unlearned + step)
        assert_equal(left @ subspace, torch.zeros_like(subspace), left)
        assert left.norm() > 0.1  # elsewhere there is some
        assert_equal(step, PROBLEM.simulated_newton(subspace))


def test_descent_is_the_closed_form_and_goes_to_the_newton_step() -> None:
    rate = 0.5 / (2 * linear.largest(PROBLEM.moment))
    for steps in (1, 7):
        assert_equal(PROBLEM.simulated_descent(rate, steps), PROBLEM.descent(rate, steps))
    assert_equal(PROBLEM.descent(rate, 1), -rate * PROBLEM.gradient())
    assert_equal(PROBLEM.descent(rate, 5000), PROBLEM.newton(IDENTITY))


# --- the bounds -----------------------------------------------------------------------------------------------------

ROWS = list(grid(SMALL))


def pick(**wanted: object) -> list[linear.Row]:
    found = [row for row in ROWS if all(getattr(row, name) == value for name, value in wanted.items())]
    assert found
    return found


def test_bounds_are_the_published_formulas() -> None:
    assert linear.gradient_bound(0.36, 0.25) == pytest.approx(2 * 0.8 * 0.5)
    assert linear.update_bound(0.36, 0.25, 3.0) == pytest.approx(0.8 / (0.36 * 3 + 0.64))


def test_simulation_and_closed_form_agree_everywhere() -> None:
    assert len(ROWS) == 3 * 3 * 2 * 2 * 10
    assert max(row.difference for row in ROWS) < 1e-6
    assert all(row.simulated == pytest.approx(row.closed_form, abs=1e-9) for row in ROWS)


def test_the_printed_leakage_is_vacuous_and_the_natural_one_is_the_overlap() -> None:
    for row in ROWS:
        assert row.leakage_whole == row.bound_whole == 0
        expected = row.overlap if row.supervision_dimension <= row.concept_dimension else 0.0
        assert row.leakage == pytest.approx(expected, abs=1e-12)
        assert math.isnan(row.ratio) == (row.bound == 0)
        assert row.bound == 0 or row.ratio == pytest.approx(row.simulated / row.bound)
    # It is positive only where both subspaces are everything.
    assert Geometry(IDENTITY, IDENTITY, IDENTITY).leakage_whole == pytest.approx(1)
    assert Geometry(IDENTITY, IDENTITY[:, :3], IDENTITY).leakage_whole == 0


def test_gradients_of_one_direction_have_the_overlap_or_its_root() -> None:
    one = {"quantity": "gradient", "concept_dimension": 1, "supervision_dimension": 1}
    for row in pick(**one, reading="rows in S"):  # the bound is met with equality
        expected = 2 * math.sqrt((1 - row.alpha) * row.overlap)
        assert (row.simulated, row.bound) == pytest.approx((expected, expected), abs=1e-12)
    for row in pick(**one, reading="columns in S"):
        assert row.simulated == pytest.approx(2 * math.sqrt(1 - row.alpha) * row.overlap, abs=1e-12)
    for row in pick(quantity="gradient", reading="free", overlap=0.0):  # it needs no overlap
        assert row.simulated == pytest.approx(2 * math.sqrt((1 - row.alpha) * row.concept_dimension))


def test_one_newton_step_is_half_the_published_bound_for_one_direction() -> None:
    """The Hessian is 2Σ_t: the constant of the bound is 1. By Σ_t, twice the step, it is the published 2."""
    same = {"quantity": "update", "reading": "free", "concept_dimension": 1, "supervision_dimension": 1, "overlap": 1.0}
    for row in pick(**same, step=linear.NEWTON):
        assert row.ratio == pytest.approx(0.5)
        denominator = row.alpha * row.curvature + 1 - row.alpha
        assert row.simulated == pytest.approx(math.sqrt(1 - row.alpha) / denominator)
    assert all(row.ratio == pytest.approx(1) for row in pick(**same, step=linear.PRINTED_HESSIAN))


def test_within_s_the_curvature_of_s_counts() -> None:
    found = pick(quantity="update", reading="rows in S", step=linear.NEWTON)
    assert all(row.simulated >= row.bound_over_s * (1 - 1e-9) for row in found)
    assert any(row.ratio < 0.5 - 1e-6 for row in found if row.bound > 0)  # C's own curvature understates it


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subspaces": [[6, 5]]}, r"subspaces \(6, 5\) need a dimension of 11"),
        ({"positions": [1000]}, "positions must be below train_timesteps 1000"),
        ({"samples": 19}, "samples must be at least 20"),
        ({"overlaps": [1.1]}, "overlaps"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LinearModelConfig.parse(changes, where="theory.linear_model")
