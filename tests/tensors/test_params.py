"""Named tensors as one vector, against NumPy."""

import numpy as np
import pytest
import torch

from resalign.tensors.params import add, detached, dot, gradient, norm, scaled, zeros_like

X = {"a": torch.tensor([[1.0, -2.0], [3.0, 0.5]]), "b": torch.tensor([4.0])}
Y = {"b": torch.tensor([-1.0]), "a": torch.tensor([[0.0, 1.0], [2.0, 3.0]])}  # another order of names


def test_arithmetic_goes_by_name() -> None:
    assert add(X, Y, -2.0)["a"].tolist() == [[1.0, -4.0], [-1.0, -5.5]]
    assert add(X, Y, -2.0)["b"].tolist() == [6.0]
    assert scaled(X, 3.0)["b"].tolist() == [12.0]
    assert dot(X, Y).item() == -2 + 6 + 1.5 - 4
    assert norm(X) == pytest.approx(np.sqrt(1 + 4 + 9 + 0.25 + 16))
    assert norm(zeros_like(X)) == 0


def test_sums_are_accumulated_in_float64() -> None:
    # 2²⁴ + 1 is no float32; its rounding would be lost in a sum of float32.
    x = {"a": torch.tensor([4096.0]), "b": torch.tensor([1.0])}
    assert dot(x, x).item() == 4096.0**2 + 1


def test_nan_is_not_swallowed() -> None:
    assert np.isnan(norm({"a": torch.tensor([1.0, float("nan")])}))


def test_detached_is_a_copy() -> None:
    leaves = detached(X, requires_grad=True)
    leaves["a"].data.fill_(9.0)
    assert X["a"][0, 0] == 1.0
    assert all(leaf.is_leaf and leaf.requires_grad for leaf in leaves.values())


def test_gradient_is_zero_where_the_loss_does_not_look() -> None:
    leaves = detached(X, requires_grad=True)
    found = gradient(leaves["a"].square().sum(), leaves)
    assert torch.equal(found["a"], 2 * X["a"])
    assert torch.equal(found["b"], torch.zeros(1))
