"""Guarded optimizer steps: clipped, and refused where a number is none."""

import math

import pytest
import torch

from resalign.tensors.steps import DivergenceError, clipped_step


def descent(start: list[float]) -> tuple[torch.Tensor, torch.optim.Optimizer]:
    variable = torch.tensor(start, requires_grad=True)
    return variable, torch.optim.SGD([variable], lr=1.0)


@pytest.mark.parametrize(("limit", "expected"), [(None, [-3.0, -4.0]), (10.0, [-3.0, -4.0]), (1.0, [-0.6, -0.8])])
def test_step_and_norm(limit: float | None, expected: list[float]) -> None:
    variable, optimizer = descent([0.0, 0.0])
    size = clipped_step(optimizer, variable @ torch.tensor([3.0, 4.0]), limit, what="test")
    assert size == pytest.approx(5.0)  # before clipping
    assert variable.tolist() == pytest.approx(expected, rel=1e-5)


def test_gradients_do_not_pile_up() -> None:
    variable, optimizer = descent([0.0])
    for _ in range(2):
        clipped_step(optimizer, variable.sum(), None, what="test")
    assert variable.item() == -2.0


@pytest.mark.parametrize("limit", [None, 1.0])
@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_what_is_not_finite_raises_and_changes_nothing(limit: float | None, factor: float) -> None:
    variable, optimizer = descent([1.0])
    with pytest.raises(DivergenceError, match=r"esd at step 3 .* diverged: gradient norm (nan|inf); lower its lr"):
        clipped_step(optimizer, (variable * factor).sum(), limit, what="esd at step 3")
    assert variable.item() == 1.0
