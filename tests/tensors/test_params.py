"""Named tensors as one vector, against NumPy."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from resalign.tensors.params import (
    Params,
    add,
    detached,
    dot,
    gradient,
    leaves,
    norm,
    scaled,
    shapes_of,
    stacked,
    unstacked,
    without_conflict,
    zeros_like,
)

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


def test_a_long_tensor_is_summed_in_parts() -> None:
    ones, upwards = {"a": torch.ones(2**18 + 3)}, {"a": torch.arange(2**18 + 3, dtype=torch.float64)}
    assert dot(ones, upwards).item() == (2**18 + 3) * (2**18 + 2) / 2
    assert norm(ones) == np.sqrt(2**18 + 3)


def test_many_short_tensors_are_summed_together_and_a_long_one_in_parts() -> None:
    sizes = (7, 2**16 - 3, 5, 2**17 + 11, 2**16, 1)
    x = {str(size): torch.arange(size, dtype=torch.float64) + 1 for size in sizes}
    squares = sum(size * (size + 1) * (2 * size + 1) // 6 for size in sizes)
    assert dot(x, x).item() == pytest.approx(squares, rel=1e-14)
    assert norm(x) == pytest.approx(squares**0.5, rel=1e-14)


def test_memory_layout_does_not_matter() -> None:
    images = torch.arange(24.0).reshape(1, 2, 3, 4)
    last = {"a": images.contiguous(memory_format=torch.channels_last)}
    assert dot(last, {"a": images}).item() == dot(last, last).item() == (images**2).sum().item()
    assert torch.equal(stacked(last), images.flatten())


def test_stacked_and_back() -> None:
    assert stacked(X).tolist() == [1.0, -2.0, 3.0, 0.5, 4.0]
    back = unstacked(stacked(X), shapes_of(X))
    assert all(torch.equal(back[name], X[name]) for name in X)


def test_one_vector_has_one_dtype() -> None:
    with pytest.raises(ValueError, match=r"one dtype, got \['torch.float32', 'torch.float64'\]"):
        stacked({"a": torch.ones(1), "b": torch.ones(1, dtype=torch.float64)})


def test_leaves_share_their_memory() -> None:
    own = leaves(X)
    assert all(own[name].data_ptr() == X[name].data_ptr() and own[name].requires_grad for name in X)
    found = gradient(own["a"].square().sum(), own)
    assert torch.equal(found["a"], 2 * X["a"])
    assert not any(tensor.requires_grad for tensor in (*X.values(), *found.values()))


def test_nan_is_not_swallowed() -> None:
    broken = {"a": torch.full((2, 2), float("nan")), "b": torch.ones(1)}
    assert np.isnan(norm(broken))
    assert np.isnan(norm(without_conflict(X, broken)))


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


def random_pairs(count: int) -> list[tuple[Params, Params]]:
    """Pairs in float64 of every angle and of norms from 1e-3 to 1e3, each vector split in two tensors."""
    stream = torch.Generator().manual_seed(0)

    def draw() -> Params:
        size = 10.0 ** float(6 * torch.rand(1, generator=stream) - 3)
        values = size * torch.randn(5, generator=stream, dtype=torch.float64)
        return {"a": values[:3], "b": values[3:]}

    return [(draw(), draw()) for _ in range(count)]


def test_without_conflict_takes_away_what_points_against() -> None:
    conflicts = 0
    for x, y in random_pairs(1000):
        projected = without_conflict(x, y)
        scale = norm(x) * norm(y)
        if dot(x, y) >= 0:
            assert projected == x
            continue
        conflicts += 1
        assert abs(dot(projected, y)) < 1e-12 * scale
        assert abs(dot(add(x, projected, -1.0), projected)) < 1e-12 * norm(x) ** 2  # a projection, and no other change
        assert norm(projected) < norm(x)
        # Blind to the other's scale, linear in its argument: a weight may come before it or after.
        weighted = without_conflict(scaled(x, 3.0), scaled(y, 0.1))
        assert norm(add(weighted, projected, -3.0)) < 1e-12 * norm(x)
        # Both together descend both, whatever the weight [Ko 2024, Definition 3].
        for weight in (0.01, 1.0, 100.0):
            step = add(projected, without_conflict(y, x), weight)
            assert dot(step, x) > -1e-12 * scale
            assert dot(step, y) > -1e-12 * scale
    assert 400 < conflicts < 600


def test_without_conflict_is_the_nearest_vector_that_does_not_conflict() -> None:
    """The projection on a half-space, as a quadratic programme that scipy solves [Lopez-Paz 2017, Eq. 8]."""
    for x, y in random_pairs(30):
        start, normal = (np.concatenate([vector["a"], vector["b"]]) for vector in (x, y))
        size, normal = np.linalg.norm(start), normal / np.linalg.norm(normal)
        target = start / size
        solved = minimize(
            lambda z, target=target: ((z - target) ** 2).sum(),
            np.zeros(5),
            jac=lambda z, target=target: 2 * (z - target),
            constraints={"type": "ineq", "fun": lambda z, normal=normal: normal @ z},
            method="SLSQP",
            options={"ftol": 1e-14},
        )
        found = without_conflict(x, y)
        np.testing.assert_allclose(np.concatenate([found["a"], found["b"]]) / size, solved.x, atol=1e-6)


def test_nothing_conflicts_with_zero() -> None:
    assert without_conflict(X, zeros_like(X)) == X
    assert norm(without_conflict(zeros_like(X), X)) == 0
