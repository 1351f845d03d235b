"""Hypergradients against closed forms and against central differences through the solved inner problem, in float64."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from resalign.bilevel.envelope import envelope_of, matched
from resalign.bilevel.hvp import Mode
from resalign.bilevel.hypergradient import FineTuned, Hypergradient, exact_hypergradient, merged_hypergradient
from resalign.bilevel.solvers import identity, richardson
from resalign.tensors.losses import gradient_at
from resalign.tensors.params import Params
from resalign.tensors.steps import DivergenceError
from tests.nearness import assert_near

from .problems import SIZE, QuadraticBilevel, Vector, central_differences, named, quadratic, symmetric, vector

MODES: tuple[Mode, ...] = ("exact", "finite_difference")
GAMMAS = (0.3, 1.0, 2.5)
TO_CONVERGENCE = partial(richardson.solve, config=richardson.Config(steps=400, rtol=0.0))
FIRST_ORDER = partial(identity.solve, config=identity.Config())


def left_over(found: Hypergradient) -> float:
    """‖∇L_FT + Δ/γ‖ relative to ‖∇L_FT‖."""
    return found.envelope.stationarity(found.gamma) / found.envelope.gradient_norm


def relative_error(found: Hypergradient | Vector, expected: Vector) -> float:
    value = vector(found.value) if isinstance(found, Hypergradient) else found
    return float(np.linalg.norm(value - expected) / np.linalg.norm(expected))


# --- full-parameter adaptation ----------------------------------------------------------------------------------------


def tuned_to(problem: QuadraticBilevel, adapted: Vector) -> FineTuned:
    """Full-parameter fine-tuning of a problem's start to given weights."""
    theta, changes = named(problem.start), named(adapted - problem.start)
    return FineTuned(
        theta,
        start={f"delta.{n}": torch.zeros_like(t) for n, t in theta.items()},
        adapted={f"delta.{n}": t for n, t in changes.items()},
        weights=lambda theta, psi: {n: theta[n] + psi[f"delta.{n}"] for n in theta},
        loss=quadratic(problem.inner, problem.inner_centre),
    )


def merged(problem: QuadraticBilevel, adapted: Vector | None = None, **settings: Any) -> Hypergradient:
    """The hypergradient at the proximal solution unless the fine-tuning ended elsewhere."""
    tuned = tuned_to(problem, problem.adapted(problem.start) if adapted is None else adapted)
    settings = {"gamma": problem.gamma, "solve": TO_CONVERGENCE, **settings}
    return merged_hypergradient(quadratic(problem.outer, problem.outer_centre), tuned, **settings)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("function", [merged_hypergradient, exact_hypergradient])
def test_quadratic_is_the_closed_form(function: Any, gamma: float, mode: Mode) -> None:
    problem = QuadraticBilevel.random(gamma)
    tuned, outer = tuned_to(problem, problem.adapted(problem.start)), quadratic(problem.outer, problem.outer_centre)
    found = function(outer, tuned, gamma=gamma, solve=TO_CONVERGENCE, mode=mode)
    # A central difference of a quadratic's gradients is exact up to rounding, ε^(2/3) of the vector's length.
    assert relative_error(found, problem.hypergradient()) < (1e-8 if mode == "exact" else 1e-6)
    assert left_over(found) < 1e-7  # adapted to the proximal solution itself


@pytest.mark.parametrize("gamma", GAMMAS)
def test_quadratic_is_the_derivative_through_fine_tuning_and_equation_7_as_printed_is_not(gamma: float) -> None:
    problem = QuadraticBilevel.random(gamma)
    measured = central_differences(problem.value, problem.start)
    assert relative_error(merged(problem), measured) < 1e-5
    # x ← (g − Hx)/γ stands still at (γI + H)⁻¹ g.
    printed = np.linalg.solve(gamma * np.eye(SIZE) + problem.inner, problem.outer_gradient())
    assert (relative_error(printed, measured) < 1e-5) if gamma == 1 else (relative_error(printed, measured) > 0.2)


def test_the_record_tells_how_good_it_is() -> None:
    problem = QuadraticBilevel.random(0.5)
    found = merged(problem, solve=partial(richardson.solve, config=richardson.Config(steps=3)))
    gradient = problem.outer_gradient()
    left = gradient - (np.eye(SIZE) + problem.gamma * problem.inner) @ vector(found.value)
    assert found.solution.relative_residual == pytest.approx(np.linalg.norm(left) / np.linalg.norm(gradient), rel=1e-9)
    assert found.first_order_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-12)
    assert found.products == 2 + 1


def test_stationarity_of_weights_that_fine_tuning_did_not_move_is_one() -> None:
    problem = QuadraticBilevel.random(0.5)
    found = merged(problem, problem.start)
    assert left_over(found) == pytest.approx(1.0, rel=1e-12)
    assert math.isnan(found.envelope.matched_gamma)


def test_first_order_is_the_gradient_after_fine_tuning() -> None:
    problem = QuadraticBilevel.random(0.5)
    found = merged(problem, solve=FIRST_ORDER)
    assert_near(vector(found.value), problem.outer_gradient(), 1e-12)
    assert (found.products, found.solution.state) == (0, "first_order")


@pytest.mark.parametrize("gamma", GAMMAS)
def test_quadratic_is_the_unrolled_proximal_problem(gamma: float) -> None:
    # Gradient descent on L_FT(θ') + ‖θ' − θ‖²/2γ, run to convergence with the graph of every step kept.
    problem = QuadraticBilevel.random(gamma)
    inner, outer = quadratic(problem.inner, problem.inner_centre), quadratic(problem.outer, problem.outer_centre)
    theta = {n: t.requires_grad_() for n, t in named(problem.start).items()}
    point: Params = dict(theta)
    for _ in range(150):
        pull = sum(((point[n] - theta[n]) ** 2).sum() for n in theta) / (2 * gamma)
        slopes = torch.autograd.grad(inner(point) + pull, list(point.values()), create_graph=True)
        point = {n: t - 0.5 * gamma * s for (n, t), s in zip(point.items(), slopes, strict=True)}
    unrolled = dict(zip(theta, torch.autograd.grad(outer(point), list(theta.values())), strict=True))
    assert relative_error(merged(problem), vector(unrolled)) < 1e-8


# --- γ matched to the fine-tuning -------------------------------------------------------------------------------------


def test_matched_gamma_is_what_few_steps_of_descent_amount_to() -> None:
    problem, lr, steps = QuadraticBilevel.random(1.0), 0.02, 5
    adapted = problem.start
    for _ in range(steps):
        adapted = adapted - lr * problem.inner @ (adapted - problem.inner_centre)
    gradient = problem.outer @ (adapted - problem.outer_centre)
    unrolled = np.linalg.matrix_power(np.eye(SIZE) - lr * problem.inner, steps) @ gradient
    fitted = merged(problem, adapted, gamma=matched)
    assert fitted.gamma == pytest.approx(lr * steps, rel=0.05)
    first_order, fixed = relative_error(gradient, unrolled), relative_error(merged(problem, adapted), unrolled)
    # Measured: 0.0005, 0.046 and, at γ = 1, 0.27.
    assert relative_error(fitted, unrolled) < 0.1 * first_order < 0.1 * fixed


def test_an_overshot_fine_tuning_has_no_matching_gamma() -> None:
    loss, start = quadratic(symmetric(np.linspace(0.5, 1.0, SIZE)), np.zeros(SIZE)), np.ones(SIZE)
    adapted = -0.5 * start  # past the minimum: the gradient there points on
    envelope = envelope_of(gradient_at(loss, named(adapted)), named(adapted - start))
    assert envelope.matched_gamma < 0
    with pytest.raises(DivergenceError, match="overshot.*gamma_unmatched"):
        matched(envelope)
    assert matched(envelope, unmatched=0.3) == 0.3


@pytest.mark.parametrize("gamma", [0.01, 1.0, 50.0])
def test_stationarity_is_numpys(gamma: float) -> None:
    hessian = symmetric(np.linspace(-1, 2, SIZE))
    point, displacement = np.random.default_rng(9).normal(size=(2, SIZE))
    envelope = envelope_of(gradient_at(quadratic(hessian, np.zeros(SIZE)), named(point)), named(displacement))
    expected = np.linalg.norm(hessian @ point + displacement / gamma)
    assert envelope.stationarity(gamma) == pytest.approx(expected, rel=1e-9)


# --- adaptations with variables of their own --------------------------------------------------------------------------


def test_exact_with_a_frozen_block_is_the_derivative_through_fine_tuning() -> None:
    # Only the last three coordinates (the bias) are fine-tuned.
    problem, own = QuadraticBilevel.random(0.5), slice(4, SIZE)
    gamma, hessian = problem.gamma, problem.inner

    def adapted(start: Vector) -> Vector:
        slope = (hessian @ (start - problem.inner_centre))[own]
        moved = start.copy()
        moved[own] -= gamma * np.linalg.solve(np.eye(3) + gamma * hessian[own, own], slope)
        return moved

    def value(start: Vector) -> float:
        shift = adapted(start) - problem.outer_centre
        return float(0.5 * shift @ problem.outer @ shift)

    end = adapted(problem.start)
    tuned = FineTuned(
        named(problem.start),
        start={"delta": torch.zeros(3, dtype=torch.float64)},
        adapted={"delta": torch.from_numpy((end - problem.start)[own])},
        weights=lambda theta, psi: {**theta, "bias": theta["bias"] + psi["delta"]},
        loss=quadratic(hessian, problem.inner_centre),
    )
    outer, measured = quadratic(problem.outer, problem.outer_centre), central_differences(value, problem.start)
    exact, at_merged = (
        function(outer, tuned, gamma=gamma, solve=TO_CONVERGENCE)
        for function in (exact_hypergradient, merged_hypergradient)
    )
    assert relative_error(exact, measured) < 1e-5
    assert relative_error(at_merged, measured) > 0.05  # measured: 0.32


class LowRankDraw:
    """A one-layer network, a rank-1 adaptation of its weight matrix, and losses that are no quadratics.

    θ = (weight (4, 3), bias (4)); θ* = θ + T(ψ), T(ψ) = up · down on the weight matrix.
    """

    GAMMA = 0.5

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(5)
        draw = partial(torch.randn, generator=generator, dtype=torch.float64)
        self.inputs, self.targets = draw(30, 3), draw(30, 4)
        self.harmful_inputs, self.harmful_targets = draw(20, 3), draw(20, 4)
        self.theta = {"weight": draw(4, 3), "bias": draw(4)}
        self.start = {"up": torch.zeros(4, 1, dtype=torch.float64), "down": draw(1, 3)}
        self.adapted = self.proximal(self.theta, self.start)

    def inner_loss(self, weights: Params) -> torch.Tensor:
        output = torch.tanh(self.inputs @ weights["weight"].T + weights["bias"])
        return (output - self.targets).square().sum(dim=1).mean()

    def outer_loss(self, weights: Params) -> torch.Tensor:
        output = torch.tanh(self.harmful_inputs @ weights["weight"].T + weights["bias"])
        return -(output - self.harmful_targets).square().sum(dim=1).mean()

    @staticmethod
    def weights(theta: Params, variables: Params) -> dict[str, torch.Tensor]:
        return {**theta, "weight": theta["weight"] + variables["up"] @ variables["down"]}

    def proximal(self, theta: Params, guess: Params) -> dict[str, torch.Tensor]:
        """ψ* = argmin L_FT(θ + T(ψ)) + ‖ψ − ψ₀‖²/2γ, by Newton steps to rounding."""

        def unpacked(flat: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"up": flat[:4, None], "down": flat[None, 4:]}

        def objective(flat: torch.Tensor) -> torch.Tensor:
            psi = unpacked(flat)
            pull = sum((psi[n] - self.start[n]).square().sum() for n in psi) / (2 * self.GAMMA)
            return self.inner_loss(self.weights(theta, psi)) + pull

        point = torch.cat([guess["up"].flatten(), guess["down"].flatten()])
        for _ in range(50):
            slope = torch.autograd.functional.jacobian(objective, point)
            if slope.norm() < 1e-13:
                break
            hessian = torch.autograd.functional.hessian(objective, point)
            step = torch.linalg.solve(hessian, slope)
            length = 1.0
            while length > 1e-6 and slope.norm() > 1e-6 and objective(point - length * step) > objective(point):
                length /= 2
            point = point - length * step
        assert slope.norm() < 1e-11
        assert torch.linalg.eigvalsh(torch.autograd.functional.hessian(objective, point)).min() > 0  # a minimum
        return unpacked(point)

    def measured(self, step: float = 1e-4) -> Vector:
        """dL_harm(θ*(θ))/dθ by central differences through the solved inner problem."""
        values: list[float] = []
        for name, tensor in self.theta.items():
            for index in range(tensor.numel()):
                ends = []
                for sign in (1.0, -1.0):
                    moved = {n: t.clone() for n, t in self.theta.items()}
                    moved[name].view(-1)[index] += sign * step
                    ends.append(self.outer_loss(self.weights(moved, self.proximal(moved, self.adapted))).item())
                values.append((ends[0] - ends[1]) / (2 * step))
        return np.array(values)


@pytest.fixture(scope="module")
def low_rank() -> tuple[LowRankDraw, FineTuned, Vector]:
    draw = LowRankDraw()
    tuned = FineTuned(draw.theta, draw.start, draw.adapted, draw.weights, draw.inner_loss)
    return draw, tuned, draw.measured()


PATIENT = partial(richardson.solve, config=richardson.Config(steps=300, relaxation=0.3, rtol=0.0))


@pytest.mark.parametrize("mode", MODES)
def test_exact_is_the_derivative_through_a_low_rank_draw(
    low_rank: tuple[LowRankDraw, FineTuned, Vector], mode: Mode
) -> None:
    draw, tuned, measured = low_rank
    found = exact_hypergradient(draw.outer_loss, tuned, gamma=draw.GAMMA, solve=PATIENT, mode=mode)
    assert found.solution.relative_residual < 1e-6
    assert left_over(found) < 1e-7
    assert found.products == 1001  # ⌈300 / 0.3⌉ for the solve with its residual, and the mixed block
    assert relative_error(found, measured) < 1e-3


def test_merged_and_first_order_err_on_a_low_rank_draw(low_rank: tuple[LowRankDraw, FineTuned, Vector]) -> None:
    draw, tuned, measured = low_rank
    at_merged = merged_hypergradient(draw.outer_loss, tuned, gamma=draw.GAMMA, solve=PATIENT)
    first = exact_hypergradient(draw.outer_loss, tuned, gamma=draw.GAMMA, solve=FIRST_ORDER)
    assert relative_error(at_merged, measured) > 0.05  # measured: 0.19
    assert relative_error(first, measured) > 0.02  # measured: 0.085
    assert first.products == 0
