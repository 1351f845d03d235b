"""Rows of the tables: which states get which, and that every model is displaced in the same random directions."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from resalign.config.theory import TheoryConfig
from resalign.tensors.params import Params
from resalign.theory.landscape import (
    CHANGE,
    ISOTROPIC,
    LOSS,
    REAL,
    FineTuning,
    displacement_rows,
    sharpness_row,
    slice_rows,
)
from resalign.theory.sharpness import FrozenLoss, sharpness
from tests.bilevel.problems import SIZE, named, quadratic, symmetric

CONFIG = TheoryConfig(probes=20, displacement_pairs=3, slice_positions=(0.0, 1.0), slice_directions=2)
HESSIAN = symmetric(np.linspace(-3.0, 1.0, SIZE))
POINT, SHIFT = named(np.arange(SIZE)), named(0.1 * np.ones(SIZE))
TUNING = FineTuning("esd", "pages", 4, 200, True, SHIFT, 3)


def examples(weights: Params) -> torch.Tensor:
    return quadratic(HESSIAN, np.zeros(SIZE))(weights).reshape(1)


LOSS_OF = FrozenLoss([examples])
FOUND = sharpness(LOSS_OF, POINT, CONFIG.probes, torch.Generator().manual_seed(0))


def test_the_last_state_has_a_real_and_an_isotropic_row_others_the_first_alone() -> None:
    real, isotropic = displacement_rows(LOSS_OF, POINT, TUNING, FOUND, CONFIG)
    [alone] = displacement_rows(LOSS_OF, POINT, replace(TUNING, is_last=False), FOUND, CONFIG)
    assert alone == real
    assert (real.kind, isotropic.kind) == (REAL, ISOTROPIC)
    assert (real.model, real.attack, real.seed, real.steps, real.tensors_elsewhere) == ("esd", "pages", 4, 200, 3)
    assert real.sigma == isotropic.sigma == pytest.approx(0.1 * math.sqrt(SIZE))
    assert real.predicted == isotropic.predicted == pytest.approx(0.01 * FOUND.trace.mean / 2)  # σ²/d = 0.01
    assert real.measured == pytest.approx(real.linear + real.quadratic)
    assert (real.n, isotropic.n) == (1, 3)
    assert math.isnan(isotropic.linear)


def test_slices_are_along_the_fine_tuning_and_random_directions_of_its_length() -> None:
    rows = list(slice_rows(LOSS_OF, POINT, TUNING, CONFIG))
    assert [row.direction for row in rows[::4]] == ["pages", "random-0-pages", "random-1-pages"]
    assert {(row.model, row.seed) for row in rows} == {("esd", 4)}
    by_place = {(row.direction, row.position, row.quantity): row.mean for row in rows}
    assert len(by_place) == len(rows) == 3 * 2 * 2
    before = float(examples(POINT))
    for direction in ("pages", "random-0-pages", "random-1-pages"):
        assert by_place[direction, 0.0, LOSS] == pytest.approx(before)
        assert by_place[direction, 0.0, CHANGE] == 0
        assert by_place[direction, 1.0, CHANGE] == pytest.approx(by_place[direction, 1.0, LOSS] - before)
    real = next(iter(displacement_rows(LOSS_OF, POINT, TUNING, FOUND, CONFIG)))
    assert by_place["pages", 1.0, CHANGE] == pytest.approx(real.measured)
    assert by_place["random-0-pages", 1.0, CHANGE] != pytest.approx(by_place["random-1-pages", 1.0, CHANGE])


def test_random_directions_do_not_depend_on_model_or_seed() -> None:
    other = replace(TUNING, model="base", seed=0, attack="bold")
    first, second = (list(displacement_rows(LOSS_OF, POINT, of, FOUND, CONFIG))[1] for of in (TUNING, other))
    assert first.measured == second.measured
    first_slice, second_slice = ([row.mean for row in slice_rows(LOSS_OF, POINT, of, CONFIG)] for of in (TUNING, other))
    assert first_slice == second_slice


def test_a_sharpness_row_says_what_is_behind_it() -> None:
    row = sharpness_row("esd", 4, FOUND)
    assert (row.model, row.seed, row.parameters, row.probes, row.examples) == ("esd", 4, SIZE, 20, 1)
    assert (row.trace, row.frobenius_squared) == (FOUND.trace.mean, FOUND.frobenius_squared.mean)
    assert row.trace_standard_error == FOUND.trace.standard_error
    assert row.frobenius_squared_standard_error == FOUND.frobenius_squared.standard_error
    assert (row.harmful_loss, row.gradient_norm) == (FOUND.loss.mean, FOUND.gradient_norm)
