"""Distance and barrier on functions whose values are known in closed form."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from resalign.objectives.barrier import barrier, distance
from resalign.tensors.params import Params, detached, gradient, norm
from tests.nearness import assert_near

START = {"a": torch.tensor([1.0, -2.0], dtype=torch.float64), "b": torch.tensor([[0.5]], dtype=torch.float64)}
END = {"b": torch.tensor([[3.5]], dtype=torch.float64), "a": torch.tensor([2.0, 0.0], dtype=torch.float64)}
AWAY = np.array([1.0, 2.0, 3.0])


def quadratic(hessian: np.ndarray, slope: np.ndarray) -> Callable[[Params], float]:
    def loss(point: Params) -> float:
        x = np.concatenate([point["a"].numpy(), point["b"].numpy().ravel()])
        return float(x @ hessian @ x / 2 + slope @ x + 7)

    return loss


def test_distance_is_over_all_tensors_and_its_gradient_points_away() -> None:
    assert distance(START, END).item() == pytest.approx(np.sqrt(14))
    leaves = detached(END, requires_grad=True)
    found = gradient(distance(START, leaves), leaves)
    assert_near(torch.cat([found["a"], found["b"].flatten()]), AWAY / np.sqrt(14), 1e-12)
    still = detached(START, requires_grad=True)
    assert norm(gradient(distance(START, still), still)) == 0  # and no NaN


@pytest.mark.parametrize("points", [1, 2, 3, 6])
def test_the_barrier_of_a_quadratic(points: int) -> None:
    """L(θ_a) is a(1 − a) · dᵀHd / 2 below its chord, whatever its slope: highest at the point nearest the middle."""
    hessian = np.array([[-2.0, 0.3, 0.0], [0.3, -1.0, 0.2], [0.0, 0.2, -0.5]])
    middle = ((points + 1) // 2) / (points + 1)
    expected = -middle * (1 - middle) * AWAY @ hessian @ AWAY / 2
    assert expected > 0
    slope = np.array([5.0, -3.0, 1.0])
    assert barrier(quadratic(hessian, slope), START, END, points) == pytest.approx(expected, rel=1e-12)
    assert barrier(quadratic(-hessian, slope), START, END, points) == 0
