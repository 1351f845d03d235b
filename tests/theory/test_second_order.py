"""The audit on problems whose every number has a closed form, in float64."""

import math
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from resalign.bilevel.adaptation import adapt
from resalign.bilevel.hypergradient import ExampleLoss
from resalign.bilevel.krylov import krylov_space
from resalign.bilevel.solution import System
from resalign.bilevel.solving import solve
from resalign.bilevel.unrolled import (
    Descent,
    directional_differences,
    forward_sensitivities,
    unrolled_hypergradient,
)
from resalign.config.strict import ConfigError
from resalign.tensors.losses import Loss
from resalign.tensors.params import Params
from resalign.tensors.steps import DivergenceError
from resalign.theory.horizon import FORWARD, _apart, horizon_draw
from resalign.theory.horizon import Config as Horizon
from resalign.theory.second_order import UNROLLED, Config, Row, SweepRow, audit_draw, solver_config
from tests.bilevel.problems import SIZE, Vector, named, quadratic, stacked, symmetric, vector
from tests.nearness import assert_near

LR = 0.3
INNER = symmetric(np.linspace(-0.5, 1.2, SIZE), seed=2)
OUTER = symmetric(np.random.default_rng(4).normal(size=SIZE), seed=5)
CENTRE, OUTER_CENTRE, START = np.random.default_rng(6).normal(size=(3, SIZE))
SOLVERS = Config().solvers
SMALL: dict[str, Any] = {
    "lr": LR,
    "simulated_steps": [1, 4],
    "gammas": [0.1, 0.5],
    "solver_steps": [2, 6],
    "sweep_simulated_steps": 4,
    "sweep_points": 3,
    "reference_steps": 30,
}


def fine_tuned(start: Vector, steps: int) -> Vector:
    """c + (I − ηH)ᵀ (θ − c), T steps of gradient descent on ½ (θ − c)ᵀ H (θ − c)."""
    moved: Vector = CENTRE + np.linalg.matrix_power(np.eye(SIZE) - LR * INNER, steps) @ (start - CENTRE)
    return moved


def outer_gradient(steps: int) -> Vector:
    gradient: Vector = OUTER @ (fine_tuned(START, steps) - OUTER_CENTRE)
    return gradient


def exact(steps: int) -> Vector:
    """Π (I − ηH) g."""
    product: Vector = np.linalg.matrix_power(np.eye(SIZE) - LR * INNER, steps) @ outer_gradient(steps)
    return product


def losses(inner: Vector = INNER):  # type: ignore[no-untyped-def]
    return quadratic(OUTER, OUTER_CENTRE), quadratic(inner, CENTRE)


def audited(inner: Vector = INNER, **settings: Any) -> tuple[list[Row], list[SweepRow]]:
    return audit_draw(*losses(inner), named(START), Config.parse({**SMALL, **settings}, where="test"), draw=0)


def relative_error(found: Vector, expected: Vector) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


# --- the references ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 4, 9])
def test_both_references_are_the_product_of_the_steps_jacobians(steps: int) -> None:
    adapted, value = unrolled_hypergradient(*losses(), named(START), lr=LR, steps=steps)
    assert_near(vector(adapted), fine_tuned(START, steps), 1e-12)
    assert relative_error(vector(value), exact(steps)) < 1e-10
    directions = np.random.default_rng(0).normal(size=(5, SIZE))
    found = directional_differences(
        *losses(), named(START), [named(direction) for direction in directions], lr=LR, steps=steps, length=0.03
    )
    assert relative_error(np.array(found), directions @ exact(steps)) < 1e-6


def curved() -> tuple[Loss, Loss]:
    """Two losses that are no quadratics, and no multiples of each other."""
    generator = torch.Generator().manual_seed(3)
    inputs, targets = (torch.randn(20, 2, generator=generator, dtype=torch.float64) for _ in range(2))

    def loss(weights: Params, column: int) -> torch.Tensor:
        output = torch.tanh(inputs @ weights["weight"].T).sum(dim=1) * weights["bias"].prod()
        return (output - targets[:, column]).square().mean()

    return partial(loss, column=1), partial(loss, column=0)


@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.05), ("adam", 0.02)])
def test_both_references_agree_where_the_loss_is_no_quadratic(optimizer: Descent, lr: float) -> None:
    outer, inner = curved()
    loop: dict[str, Any] = {"lr": lr, "steps": 6, "optimizer": optimizer}
    adapted, value = unrolled_hypergradient(outer, inner, named(START), **loop)
    assert_near(vector(adapted), vector(adapt(lambda _: inner, named(START), **loop)[0]), 1e-12)
    _, elsewhere = unrolled_hypergradient(outer, inner, named(1.1 * START), **loop)
    assert relative_error(vector(elsewhere), vector(value)) > 0.05  # the Jacobians vary along the way
    directions = [named(direction) for direction in np.eye(SIZE)]
    found = directional_differences(outer, inner, named(START), directions, length=1e-5, **loop)
    assert relative_error(np.array(found), vector(value)) < 1e-6


def test_going_back_step_by_step_is_autograd_through_all_steps() -> None:
    outer, inner = curved()
    losses: list[Loss] = [lambda weights, scale=scale: scale * inner(weights) for scale in range(1, 8)]
    for optimizer, lr in (("sgd", 0.05), ("adam", 0.02)):
        leaves = {name: tensor.requires_grad_() for name, tensor in named(START).items()}
        weights: dict[str, torch.Tensor] = dict(leaves)
        first = {name: torch.zeros_like(tensor) for name, tensor in leaves.items()}
        second = dict(first)
        for step in range(1, 8):
            slopes = torch.autograd.grad(losses[step - 1](weights), list(weights.values()), create_graph=True)
            for name, slope in zip(leaves, slopes, strict=True):
                moved = slope
                if optimizer == "adam":
                    first[name] = 0.9 * first[name] + 0.1 * slope
                    second[name] = 0.999 * second[name] + 0.001 * slope**2
                    moved = first[name] / (1 - 0.9**step) / ((second[name] / (1 - 0.999**step)).sqrt() + 1e-8)
                weights[name] = weights[name] - lr * moved
        expected = torch.autograd.grad(outer(weights), list(leaves.values()))
        kind: Descent = "adam" if optimizer == "adam" else "sgd"
        _, value = unrolled_hypergradient(outer, losses, named(START), lr=lr, steps=7, optimizer=kind)
        assert relative_error(vector(value), torch.cat([part.reshape(-1) for part in expected]).numpy()) < 1e-12


def test_adam_does_not_move_a_weight_without_a_gradient_and_its_derivative_there_is_finite() -> None:
    outer, _ = losses()

    def inner(weights: Params) -> torch.Tensor:
        return (weights["weight"] - 1).square().sum()

    _, value = unrolled_hypergradient(outer, inner, named(START), lr=0.1, steps=3, optimizer="adam")
    assert torch.isfinite(stacked(value)).all()
    adapted, _ = adapt(lambda _: inner, named(START), lr=0.1, steps=3, optimizer="adam")
    leaves = {name: tensor.requires_grad_() for name, tensor in adapted.items()}
    (slope,) = torch.autograd.grad(outer(leaves), [leaves["bias"]])
    assert_near(value["bias"], slope, 1e-12)


def test_forward_sensitivities_are_the_derivatives_by_every_steps_rate_and_weight() -> None:
    outer, inner = curved()
    other, weight, lr, steps = quadratic(INNER, CENTRE), 0.3, 0.02, 6
    rates, weights = (torch.full((steps,), v, dtype=torch.float64, requires_grad=True) for v in (lr, weight))
    theta: Params = {name: tensor.requires_grad_() for name, tensor in named(START).items()}
    point = dict(theta)
    for rate, share in zip(rates, weights, strict=True):
        loss = inner(point) + share * other(point)
        slopes = torch.autograd.grad(loss, list(point.values()), create_graph=True)
        point = {n: t - rate * s for (n, t), s in zip(point.items(), slopes, strict=True)}
    by_rate, by_weight, *by_start = torch.autograd.grad(outer(point), [rates, weights, *theta.values()])
    directions = np.random.default_rng(1).normal(size=(2, SIZE))
    terms = {"denoising": (1.0, inner), "prior": (weight, other)}
    for window in (1, 4, None):
        found = forward_sensitivities(
            outer, terms, named(START), lr=lr, steps=steps, window=window, directions=[named(v) for v in directions]
        )
        parts = range(0, steps, window or steps)
        for values, expected in ((found.rate, by_rate), (found.term_weights["prior"], by_weight)):
            assert values == pytest.approx([float(expected[i : i + (window or steps)].sum()) for i in parts], rel=1e-10)
        start = torch.cat([part.reshape(-1) for part in by_start]).numpy()
        assert found.directions == pytest.approx(directions @ start, rel=1e-10)


# --- the Krylov space -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.05, 0.7, 4.0])
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("name", SOLVERS)
def test_a_projected_solve_is_the_solvers_own(name: str, steps: int, gamma: float) -> None:
    hessian = torch.from_numpy(symmetric(np.linspace(-0.6, 2.0, 40), seed=8))
    g = {"only": torch.from_numpy(np.random.default_rng(9).normal(size=40))}

    def hvp(v: Params) -> dict[str, torch.Tensor]:
        return {"only": hessian @ v["only"]}

    space = krylov_space(hvp, g, steps + 1)
    assert len(space.basis) == steps + 1
    torch.testing.assert_close(space.basis @ space.basis.T, torch.eye(steps + 1, dtype=torch.float64))
    systems = System(hvp, g, gamma), space.system(gamma)
    try:
        whole = solve(systems[0], solver_config(name, steps))
    except DivergenceError:
        with pytest.raises(DivergenceError, match="negative curvature"):
            solve(systems[1], solver_config(name, steps))
        return
    projected = solve(systems[1], solver_config(name, steps))
    assert_near(space.lifted(projected.x), whole.x["only"], 1e-9)
    assert projected.relative_residual == pytest.approx(whole.relative_residual, rel=1e-9)
    assert (projected.state, projected.products) == (whole.state, whole.products)


def test_the_space_ends_where_it_is_invariant() -> None:
    g = named(START)
    space = krylov_space(lambda v: {name: 3 * tensor for name, tensor in v.items()}, g, 5)
    assert space.basis.shape == (1, SIZE)
    assert space.extremes == pytest.approx((3.0, 3.0))


def test_a_zero_right_hand_side_spans_nothing() -> None:
    with pytest.raises(ValueError, match="the right-hand side is zero"):
        krylov_space(dict, named(np.zeros(SIZE)), 3)


# --- the table --------------------------------------------------------------------------------------------------------


def test_every_combination_is_there_once() -> None:
    rows, sweep = audited()
    gammas = [("matched", None), ("matched_displacement", None), ("fixed", 0.1), ("fixed", 0.5)]
    expected = [
        (steps, name, rule, gamma, k) for steps in (1, 4) for name in SOLVERS for rule, gamma in gammas for k in (2, 6)
    ]
    expected += [(steps, name, "none", None, 0) for steps in (1, 4) for name in ("unrolled", "identity")]
    found = [
        (r.simulated_steps, r.estimator, r.gamma_rule, r.gamma if r.gamma_rule == "fixed" else None, r.solver_steps)
        for r in rows
    ]
    assert Counter(found) == Counter(expected)
    assert {(r.gamma, r.estimator) for r in sweep} == {
        (gamma, name) for gamma in Config.parse(SMALL, where="test").sweep_gammas for name in ("identity", *SOLVERS)
    }
    assert {r.simulated_steps for r in sweep} == {4}


def test_every_number_is_the_closed_form() -> None:
    directions_seen = 0
    for row in audited(solver_steps=[6])[0]:
        h, g = exact(row.simulated_steps), outer_gradient(row.simulated_steps)
        if row.estimator == "unrolled":
            assert (row.state, row.relative_error, row.cosine) == ("reference", 0, pytest.approx(1))
            assert row.difference_error < 1e-6
            directions_seen += 1
            continue
        if row.gamma_rule == "matched":
            assert row.gamma == pytest.approx(row.simulated_steps * LR)
        if row.estimator == "identity":
            x = g
        elif row.estimator == "richardson":
            x = sum(np.linalg.matrix_power(-row.gamma * INNER, power) @ g for power in range(6))
        elif row.estimator == "richardson_printed":
            x = sum(np.linalg.matrix_power(-INNER / row.gamma, power) @ g for power in range(6)) / row.gamma
        elif row.state == "converged":
            x = np.linalg.solve(np.eye(SIZE) + row.gamma * INNER, g)
        else:
            continue
        assert row.relative_error == pytest.approx(relative_error(x, h), rel=1e-4, abs=1e-6)
        assert row.cosine == pytest.approx(x @ h / np.linalg.norm(x) / np.linalg.norm(h), abs=1e-6)
        if row.estimator != "identity":
            left = g - (np.eye(SIZE) + row.gamma * INNER) @ x
            assert row.relative_residual == pytest.approx(np.linalg.norm(left) / np.linalg.norm(g), rel=1e-6, abs=1e-6)
    assert directions_seen == 2


def test_the_error_along_directions_is_the_error_where_they_span_everything() -> None:
    # In the mean over Gaussian directions ‖V(x − h)‖² is ‖x − h‖², so that many of them give the relative error.
    for row in audited(directions=1000, solver_steps=[2], simulated_steps=[4])[0]:
        if row.estimator in ("identity", "minres"):
            assert row.difference_error == pytest.approx(row.relative_error, rel=0.1)


def test_curvature_is_gamma_times_the_spectrums_ends() -> None:
    for row in audited(solver_steps=[6])[0]:
        if row.gamma_rule != "none":
            assert row.smallest_curvature == pytest.approx(-0.5 * row.gamma, rel=1e-6)
            assert row.largest_curvature == pytest.approx(1.2 * row.gamma, rel=1e-6)


RESULTS = ("cosine", "relative_error", "difference_error", "relative_residual")


def test_a_solver_that_raises_is_a_marked_row() -> None:
    rows, sweep = audited(gammas=[8.0], sweep_from=0.01, sweep_to=10.0)
    raised = [row for row in rows if row.estimator == "conjugate_gradient" and row.gamma == 8.0]
    assert len(raised) == 4
    for row in raised:
        if row.state != "raised":  # K = 2 may end before a direction of negative curvature is met
            assert row.solver_steps == 2
    assert any(row.state == "raised" for row in raised)
    for row in [*rows, *sweep]:
        values = [getattr(row, name) for name in RESULTS]
        if row.state == "raised":
            assert all(math.isnan(value) for value in values)
        elif row.estimator not in ("unrolled", "identity"):
            assert all(math.isfinite(value) for value in values)
    given_up = [row for row in sweep if row.state == "raised"]
    assert given_up
    assert all(math.isnan(row.converged_error) and math.isnan(row.printed_residual) for row in given_up)


def test_a_fine_tuning_that_no_gamma_matches_is_a_marked_row() -> None:
    rows, _ = audited(np.eye(SIZE) * 1.5 / LR, simulated_steps=[1], sweep_simulated_steps=1)
    raised = [row for row in rows if row.state == "raised"]
    assert {row.gamma_rule for row in raised} == {"matched_displacement"}
    assert len(raised) == sum(row.gamma_rule == "matched_displacement" for row in rows)
    assert all(math.isnan(row.gamma) for row in raised)


def test_a_diverged_fine_tuning_is_no_table() -> None:
    with pytest.raises(DivergenceError, match="the fine-tuning diverged"):
        audited(np.eye(SIZE) * 1e200)


# --- the sweep --------------------------------------------------------------------------------------------------------


def test_the_sweep_tells_the_printed_iterations_other_solution() -> None:
    _, sweep = audited(sweep_from=1.0, sweep_to=100.0, sweep_solver_steps=6)
    of = {(row.estimator, row.gamma): row for row in sweep}
    assert {gamma for _, gamma in of} == {1.0, 10.0, 100.0}
    printed = of["richardson_printed", 100.0]
    assert printed.printed_residual < 1e-6  # converged, to (γI + H)⁻¹ g …
    assert printed.converged_error > 0.5  # … which is far from (I + γH)⁻¹ g
    g = outer_gradient(4)
    solutions = [np.linalg.solve(a * np.eye(SIZE) + b * INNER, g) for a, b in ((100.0, 1.0), (1.0, 100.0))]
    assert printed.converged_error == pytest.approx(relative_error(*solutions), rel=1e-4)
    assert printed.converged_residual < 1e-9
    for name in ("relative_error", "relative_residual", "printed_residual"):  # at γ = 1 the two iterations are one
        same = [getattr(of[solver, 1.0], name) for solver in ("richardson", "richardson_printed")]
        assert same[0] == pytest.approx(same[1], rel=1e-9)


def test_the_sweeps_ends_are_in_it() -> None:
    gammas = Config().sweep_gammas
    assert (gammas[0], gammas[-1], len(gammas)) == (1e-3, 100.0, 21)
    assert 1.0 in gammas
    np.testing.assert_allclose(np.diff(np.log10(gammas)), 0.25)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sweep_simulated_steps": 2}, r"sweep_simulated_steps 2 must be one of simulated_steps \(1, 4\)"),
        ({"solvers": ["minres", "cg"]}, "no bilevel.solvers named 'cg'"),
        ({"solvers": ["neumann"]}, "unknown key 'steps'"),
    ],
)
def test_what_cannot_be_audited_is_refused_first(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config.parse({**SMALL, **settings}, where="test")


# --- over horizons ----------------------------------------------------------------------------------------------------


def test_over_a_horizon_every_estimate_is_held_against_the_derivative_through_every_step() -> None:
    outer, inner = losses()
    drawn: list[int] = []

    def inner_of(batch_size: int) -> tuple[Loss, tuple[ExampleLoss, ...]]:
        drawn.append(batch_size)
        return quadratic(INNER + (0.1 * np.eye(SIZE) if len(drawn) > 1 else 0), CENTRE), ()

    settings = {"simulated_steps": [1, 4], "rates": {"sgd": LR}, "solvers": ["identity", "minres"], "at": 4}
    config = Horizon.parse({**settings, "batch_sizes": [3]}, where="test")
    rows, costs = horizon_draw(outer, inner_of, named(START), config, 0)
    assert drawn == [2, 3]
    taken = [(UNROLLED, 4), (FORWARD, 4), ("identity", 0), ("minres 5", 5)]
    assert [(cost.solver, cost.products) for cost in costs] == taken
    for row in rows:
        g, h, gamma = outer_gradient(row.simulated_steps), exact(row.simulated_steps), row.gamma
        if row.gamma_rule == "matched":
            assert gamma == row.simulated_steps * LR
        if row.solver == "identity":
            assert row.relative_error == pytest.approx(relative_error(g, h), rel=1e-9)
        elif not row.batch:
            assert row.state in ("max_steps", "converged")
            close = np.linalg.solve(np.eye(SIZE) + gamma * INNER, g)
            assert abs(row.relative_error - relative_error(close, h)) <= 3 * row.relative_residual * np.linalg.norm(
                np.linalg.inv(np.eye(SIZE) + gamma * INNER), 2
            ) * np.linalg.norm(g) / np.linalg.norm(h)
    other = [row for row in rows if row.batch]
    assert {(row.simulated_steps, row.batch) for row in other} == {(4, 3)}
    same = {(r.solver, r.gamma_rule): r.relative_error for r in rows if r.simulated_steps == 4 and not r.batch}
    assert all((same[r.solver, r.gamma_rule] == r.relative_error) == (r.solver == "identity") for r in other)


def test_a_rule_or_a_solver_that_gives_up_is_a_row() -> None:
    outer, _ = losses()
    concave = quadratic(-np.eye(SIZE), CENTRE)
    settings = {
        "simulated_steps": [4],
        "rates": {"sgd": LR},
        "solvers": ["conjugate_gradient"],
        "at": 4,
        "batch_sizes": [],
    }
    rows, costs = horizon_draw(outer, lambda _: (concave, ()), named(START), Horizon.parse(settings, where="test"), 0)
    # γ = 4η is 1.2, and I − 1.2 I is not positive definite.
    assert [(row.gamma_rule, row.state) for row in rows] == [
        ("matched", "raised"),
        ("matched_displacement", "converged"),
    ]
    assert math.isnan(rows[0].relative_error)
    assert [cost.solver for cost in costs] == [UNROLLED, FORWARD, "conjugate_gradient 5"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").is_file(), reason="memory is measured on Linux")
def test_memory_is_what_a_call_holds_at_most_beyond_what_was_held() -> None:
    held = torch.ones(2**24)  # 64 MB

    def work() -> None:
        torch.ones(2**25).add_(held[0])  # 128 MB

    seconds, megabytes = _apart(work)
    if math.isnan(megabytes):
        pytest.skip("this system does not let a process measure its memory")
    assert seconds > 0
    assert 120 < megabytes < 200


def test_what_cannot_be_measured_is_no_number_and_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise MemoryError("too much")

    assert all(map(math.isnan, _apart(broken)))
    measurable = Path("/proc/self/clear_refs").is_file() and not torch.cuda.is_available()
    assert ("MemoryError: too much" in capfd.readouterr().err) == measurable
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # a forked process would wait for the second one
    try:
        assert all(map(math.isnan, _apart(dict)))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"at": 5}, r"at, 5, be in simulated_steps"),
        ({"rates": {"adam": 1e-3}}, "rates must have sgd"),
        ({"solvers": ["minres", {"name": "minres", "rtol": 0.1}]}, "must differ in name or products"),
    ],
)
def test_grids_that_do_not_fit_together_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Horizon.parse(settings, where="test")


def test_a_fine_tuning_that_diverges_is_no_reference() -> None:
    convex = quadratic(np.eye(SIZE), CENTRE)
    with pytest.raises(DivergenceError, match=r"through 400 steps of sgd at 1000 is not finite"):
        unrolled_hypergradient(convex, convex, named(START), lr=1e3, steps=400)
    with pytest.raises(DivergenceError, match="is not finite"):
        forward_sensitivities(convex, {"all": (1.0, convex)}, named(START), lr=1e3, steps=400)


def test_adams_derivative_is_another_than_gradient_descents() -> None:
    outer, inner = curved()
    settings = {"simulated_steps": [6], "rates": {"sgd": 0.02, "adam": 0.02}, "solvers": ["identity"], "at": 6}
    rows, _ = horizon_draw(
        outer,
        lambda _: (inner, ()),
        named(START),
        Horizon.parse({**settings, "batch_sizes": []}, where="test"),
        0,
    )
    assert [(row.optimizer, row.gamma_rule) for row in rows] == [
        ("sgd", "matched"),
        ("sgd", "matched_displacement"),
        ("adam", "matched_displacement"),
        ("adam", "fixed"),
        ("adam", "fixed"),
    ]
    errors = [row.relative_error for row in rows]
    assert errors[0] == errors[1] != errors[2] == errors[3] == errors[4]
