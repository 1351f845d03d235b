"""The simulated fine-tuning against PyTorch's own optimizers."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from resalign.bilevel.adaptation import Optimizer, adapt
from resalign.tensors.losses import Loss
from resalign.tensors.params import Params
from resalign.tensors.steps import DivergenceError
from tests.nearness import assert_near

from .problems import SIZE, named, quadratic, stacked, symmetric, vector

START, CENTRE = np.random.default_rng(11).normal(size=(2, SIZE))
HESSIAN = symmetric(np.linspace(0.1, 1.0, SIZE))
LOSS = quadratic(HESSIAN, CENTRE)
OPTIMIZERS: tuple[Optimizer, ...] = ("sgd", "adam", "adam_twice_corrected", "adamw")


def descend(
    steps: int, optimizer: Optimizer, lr: float = 0.1, **more: Any
) -> tuple[dict[str, torch.Tensor], list[float]]:
    return adapt(lambda step: LOSS, named(START), lr=lr, steps=steps, optimizer=optimizer, **more)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_zero_steps_change_nothing(optimizer: Optimizer) -> None:
    adapted, losses = descend(0, optimizer)
    np.testing.assert_array_equal(vector(adapted), START)
    assert losses == []


def test_gradient_descent_is_numpys() -> None:
    adapted, losses = descend(7, "sgd")
    point, expected = START, []
    for _ in range(7):
        expected.append(0.5 * (point - CENTRE) @ HESSIAN @ (point - CENTRE))
        point = point - 0.1 * HESSIAN @ (point - CENTRE)
    assert_near(vector(adapted), point, 1e-12)
    assert_near(losses, expected, 1e-12)


def test_adams_first_step_has_the_learning_rates_length_in_every_coordinate() -> None:
    adapted, _ = descend(1, "adam", lr=0.01)
    np.testing.assert_allclose(np.abs(vector(adapted) - START), np.full(SIZE, 0.01), rtol=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_optimizers_state_is_new_at_each_call(optimizer: Optimizer) -> None:
    first, second = descend(5, optimizer), descend(5, optimizer)
    np.testing.assert_array_equal(vector(first[0]), vector(second[0]))
    assert first[1] == second[1]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_kept_state_goes_on_where_it_ended(optimizer: Optimizer) -> None:
    state: dict[str, Any] = {}
    half, _ = descend(3, optimizer, state=state)
    rest, _ = adapt(lambda _: LOSS, half, lr=0.1, steps=2, optimizer=optimizer, state=state)
    np.testing.assert_array_equal(vector(rest), vector(descend(5, optimizer)[0]))


def test_adam_twice_corrected_is_adam_at_a_rate_that_is_corrected_once_more() -> None:
    point, m, v = START, np.zeros(SIZE), np.zeros(SIZE)
    for t in range(1, 6):
        slope = HESSIAN @ (point - CENTRE)
        m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
        rate = 0.1 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        point = point - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    assert_near(vector(descend(5, "adam_twice_corrected")[0]), point, 1e-12)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_start_is_left_alone_and_the_result_is_outside_every_graph(optimizer: Optimizer) -> None:
    start, seen = {name: tensor.requires_grad_() for name, tensor in named(START).items()}, []

    def loss_of(step: int) -> Loss:
        seen.append(step)
        return LOSS

    adapted, _ = adapt(loss_of, start, lr=0.1, steps=3, optimizer=optimizer)
    assert seen == [0, 1, 2]
    np.testing.assert_array_equal(vector(start), START)
    assert all(tensor.grad is None for tensor in start.values())
    assert not any(tensor.requires_grad for tensor in adapted.values())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_raises(optimizer: Optimizer, value: float) -> None:
    def loss_of(step: int) -> Loss:
        return lambda variables: LOSS(variables) * (value if step == 2 else 1.0)

    with pytest.raises(DivergenceError, match=rf"diverged at step 2 with {optimizer}, lr 0\.1"):
        adapt(loss_of, named(START), lr=0.1, steps=5, optimizer=optimizer)


def test_a_last_step_that_leaves_the_numbers_raises() -> None:
    # The loss is finite where it is taken, but its gradient is not: √0.
    def loss(variables: Params) -> torch.Tensor:
        return (stacked(variables) - stacked(named(START))).abs().sum().sqrt()

    with pytest.raises(DivergenceError):
        adapt(lambda _: loss, named(START), lr=0.1, steps=1, optimizer="sgd")
