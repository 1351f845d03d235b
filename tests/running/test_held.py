"""Saved values are put back into the objects that they came from, to the bit."""

import io
import random
from typing import Any

import numpy as np
import pytest
import torch

from resalign.running.held import capture, capture_randomness, restore, restore_randomness
from resalign.tracking import History


def through_a_file(value: Any) -> Any:
    stream = io.BytesIO()
    torch.save(value, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


def test_tensors_are_filled_in_place_so_that_views_of_them_follow() -> None:
    weights = torch.arange(4.0, requires_grad=True)
    view = weights.detach()
    saved = through_a_file(capture(weights))
    with torch.no_grad():
        weights.zero_()
    restore(weights, saved)
    assert view.tolist() == [0, 1, 2, 3]
    assert weights.requires_grad


def test_an_optimizer_goes_on_with_equal_bits() -> None:
    def steps(weights: torch.Tensor, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            weights.grad = torch.sin(weights.detach() + 1)
            optimizer.step()

    first = torch.linspace(0, 1, 5, requires_grad=True)
    optimizer = torch.optim.Adam([first], lr=0.1)
    steps(first, optimizer, 3)
    saved = through_a_file(capture({"weights": first, "optimizer": optimizer}))
    steps(first, optimizer, 2)
    second = torch.zeros(5, requires_grad=True)
    other = torch.optim.Adam([second], lr=0.7)
    restore({"weights": second, "optimizer": other}, saved)
    steps(second, other, 2)
    assert torch.equal(first, second)


def test_random_streams_go_on() -> None:
    streams = {"torch": torch.Generator().manual_seed(1), "numpy": np.random.default_rng(1)}

    def draw() -> tuple[float, float]:
        return torch.rand(1, generator=streams["torch"]).item(), float(streams["numpy"].random())

    draw()
    saved = through_a_file(capture(streams))
    expected = draw()
    draw()
    restore(streams, saved)
    assert draw() == expected


def test_the_processs_own_random_states_go_on() -> None:
    def draw() -> tuple[float, ...]:
        legacy = float(np.random.rand())  # noqa: NPY002 (libraries draw from it)
        return torch.rand(1).item(), legacy, random.random(), random.gauss(0, 1)  # noqa: S311

    with torch.random.fork_rng():
        before, python = np.random.get_state(), random.getstate()
        try:
            draw()
            saved = through_a_file(capture_randomness())
            expected = draw()
            draw()
            restore_randomness(saved)
            assert draw() == expected
        finally:
            np.random.set_state(before)
            random.setstate(python)


def test_histories_and_plain_dictionaries_are_replaced() -> None:
    history, kept = History(), {"1": "step-1.safetensors"}
    history.record(1, loss=0.5)
    saved = through_a_file(capture({"history": history, "kept": kept}))
    history.record(2, loss=0.4)
    kept["2"] = "step-2.safetensors"
    restore({"history": history, "kept": kept}, saved)
    assert [(step, value) for step, _, value in history.rows] == [(1, 0.5)]
    assert kept == {"1": "step-1.safetensors"}


class Holder:
    """Something with a state of numpy's, as a schedule may have."""

    def state_dict(self) -> dict[str, object]:
        return {"rate": np.float64(0.1)}


@pytest.mark.parametrize("held", [3, "text", None, [1, 2], np.float64(0.5), Holder(), {"save": capture}])
def test_what_could_not_be_put_back_is_refused_when_it_is_saved(held: object) -> None:
    with pytest.raises(TypeError, match="cannot be saved between steps|would not be read back"):
        capture(held)


def test_a_tensor_of_another_shape_is_not_spread_over_its_place() -> None:
    with pytest.raises(ValueError, match=r"shape \(1,\), its place \(3,\)"):
        restore(torch.zeros(3), torch.ones(1))
