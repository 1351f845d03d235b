"""The distance and its gradient, on weights whose distance is known."""

import numpy as np
import pytest
import torch

from resalign.objectives.weight_distance import distance
from resalign.tensors.params import detached, gradient, norm
from tests.nearness import assert_near

START = {"a": torch.tensor([1.0, -2.0], dtype=torch.float64), "b": torch.tensor([[0.5]], dtype=torch.float64)}
END = {"b": torch.tensor([[3.5]], dtype=torch.float64), "a": torch.tensor([2.0, 0.0], dtype=torch.float64)}
AWAY = np.array([1.0, 2.0, 3.0])


def test_distance_is_over_all_tensors_and_its_gradient_points_away() -> None:
    assert distance(START, END).item() == pytest.approx(np.sqrt(14))
    leaves = detached(END, requires_grad=True)
    found = gradient(distance(START, leaves), leaves)
    assert_near(torch.cat([found["a"], found["b"].flatten()]), AWAY / np.sqrt(14), 1e-12)
    still = detached(START, requires_grad=True)
    assert norm(gradient(distance(START, still), still)) == 0  # and no NaN
