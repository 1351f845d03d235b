"""Recorded computations against the functions that they were recorded from."""

from collections.abc import Callable, Mapping

import pytest
import torch

from resalign.tensors.losses import RepeatedLoss, gradient_at, loss_at, value_and_gradient
from resalign.tensors.params import Params
from resalign.tensors.recording import TracingError, recorded, recorded_linear
from resalign.tensors.tracing import Traces

Named = dict[str, torch.Tensor]


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class Counted:
    """A function that counts how often its own code runs."""

    def __init__(self, function: Callable[..., Named]) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *inputs: Params) -> Named:
        self.calls += 1
        return self.function(*inputs)


def mixed(x: Params, y: Params) -> Named:
    return {"sum": (x["a"] @ y["b"]).tanh() + 1, "first": x["a"].sum(0) * 2.0}


def test_a_computation_is_recorded_after_some_runs_and_then_replayed_on_other_numbers() -> None:
    traces, counted = Traces(after=2), Counted(mixed)
    for seed in range(6):
        x, y = {"a": draw(seed, 3, 4)}, {"b": draw(seed + 9, 4, 5)}
        found, own = traces.run("mixed", counted, x, y), mixed(x, y)
        assert list(found) == list(own)
        assert all(torch.equal(found[name], own[name]) for name in own)
        assert counted.calls == min(seed + 1, 3)  # the third time to record it


def test_other_shapes_names_and_types_are_other_computations() -> None:
    traces, counted = Traces(after=0), Counted(lambda x: {name: tensor * 2 for name, tensor in x.items()})
    inputs: list[Named] = [
        {"a": draw(0, 3)},
        {"a": draw(0, 4)},
        {"b": draw(0, 4)},
        {"a": draw(0, 4, dtype=torch.float64)},
        {"a": draw(0, 2, 3)},
        {"a": draw(0, 3, 2).T},
    ]
    for x in (*inputs, *inputs):
        found = traces.run("double", counted, x)
        assert all(torch.equal(found[name], 2 * x[name]) and found[name].dtype == x[name].dtype for name in x)
    assert counted.calls == len(inputs)


def test_one_tensor_that_is_given_twice_is_two_inputs() -> None:
    traces, same = Traces(after=0), {"a": draw(0, 3)}
    for x, y in ((same, same), ({"a": draw(1, 3)}, {"a": draw(2, 3)})):
        found = traces.run("difference", lambda x, y: {"a": x["a"] - 2 * y["a"]}, x, y)
        assert torch.equal(found["a"], x["a"] - 2 * y["a"])


def test_a_constant_is_seen_as_it_is_now() -> None:
    traces, constant = Traces(after=0), draw(0, 3)
    x = {"a": draw(1, 3)}
    for _ in range(2):
        assert torch.equal(traces.run("scaled", lambda x: {"a": x["a"] * constant}, x)["a"], x["a"] * constant)
        constant.add_(1)


def branching(x: Params) -> Named:
    return {"a": x["a"] if x["a"].sum() > 0 else -x["a"]}


def changing(x: Params) -> Named:
    return {"a": x["a"].view(-1)[1:].add_(1)}


@pytest.mark.parametrize(("function", "message"), [(branching, "a number decides"), (changing, "add_")])
def test_what_cannot_be_recorded_runs_on_and_is_logged_once(
    function: Callable[[Params], Named], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    traces, counted = Traces(after=1), Counted(function)
    for sign in (1, -1, 1):
        x, own = ({"a": sign * draw(0, 3)} for _ in range(2))
        assert torch.equal(traces.run("function", counted, x)["a"], function(own)["a"])
    assert message in caplog.text
    assert len([record for record in caplog.records if record.name == "resalign.tensors.tracing"]) == 1
    with pytest.raises(TracingError, match=message):
        recorded(function, [{"a": draw(0, 3)}], None)


def weighted(change: bool = False) -> Callable[[Params], tuple[Named, Callable[[Params], Named]]]:
    """(x, v ↦ tanh(x) v): the value and a linear map."""

    def linear(x: Params) -> tuple[Named, Callable[[Params], Named]]:
        kept = x["a"].tanh()

        def product(v: Params) -> Named:
            return {"row": (kept.mul_(v["v"]) if change else kept * v["v"]).sum(0), "constant": torch.ones(2)}

        return {"value": (kept if change else x["a"]) + 0}, product

    return linear


def test_a_linear_map_is_recorded_in_two_parts() -> None:
    traces, like = Traces(after=3), {"v": draw(0, 3, 4)}
    for seed in range(4):
        x = {"a": draw(seed, 3, 4)}
        value, product = traces.linear("weighted", weighted(), like, x)
        assert torch.equal(value["value"], x["a"])
        for other in (7, 8, 7):
            v = {"v": draw(other, 3, 4)}
            assert torch.equal(product(v)["row"], (x["a"].tanh() * v["v"]).sum(0))
            assert torch.equal(product(v)["constant"], torch.ones(2))


def test_a_product_that_reads_what_the_value_changes_later_cannot_be_recorded() -> None:
    def linear(x: Params) -> tuple[Named, Callable[[Params], Named]]:
        changed = x["a"].tanh()
        early = changed * 2  # of a product alone, so that it would come after the change
        changed.add_(1)
        return {"value": changed * 1}, lambda v: {"row": early * v["v"]}

    with pytest.raises(TracingError, match="as it was before"):
        recorded_linear(linear, [{"a": draw(0, 3)}], {"v": draw(1, 3)}, None)


def test_what_the_value_does_not_need_is_computed_by_each_product_and_not_kept() -> None:
    x = draw(0, 3, 4)
    recording = recorded_linear(weighted(), [{"a": x}], {"v": draw(1, 3, 4)}, None)
    value, *kept = recording.replay([x])
    assert torch.equal(value, x)
    assert kept
    assert not any(torch.equal(tensor, x.tanh()) for tensor in kept)


def test_products_that_would_change_what_the_next_one_needs_cannot_be_recorded() -> None:
    with pytest.raises(TracingError, match="mul_"):
        recorded_linear(weighted(change=True), [{"a": draw(0, 3, 4)}], {"v": draw(0, 3, 4)}, None)


def cubic(weights: Params, data: Params) -> torch.Tensor:
    return (weights["a"] ** 3 @ data["b"]).sum() + weights["bias"].sum()


def shifted(start: Params, variables: Params) -> Named:
    return {"a": start["a"] + variables["v"], "bias": start["bias"]}


def test_a_repeated_loss_that_repeats_has_its_own_gradient() -> None:
    traces, point = Traces(after=1), {"a": draw(0, 2, 3), "bias": draw(1, 3), "unused": draw(2, 2)}
    for seed in range(4):
        data = {"b": draw(seed, 3, 2)}
        loss = RepeatedLoss(cubic, (data,), traces)
        value, slope = value_and_gradient(loss, point)
        assert torch.equal(value, cubic(point, data))
        assert torch.allclose(slope["a"], 3 * point["a"] ** 2 * data["b"].sum(1))
        assert torch.equal(slope["bias"], torch.ones(3))
        assert torch.equal(slope["unused"], torch.zeros(2))
        assert "unused" not in value_and_gradient(loss, point, fill=False)[1]
        _, part = value_and_gradient(loss, point, ["bias"])
        assert list(part) == ["bias"]
        moved = loss_at(loss, shifted, point)
        assert torch.equal(gradient_at(moved, {"v": torch.zeros(2, 3)})["v"], slope["a"])


def test_losses_that_differ_in_more_than_data_share_no_recording() -> None:
    traces, point = Traces(after=0), {"a": draw(0, 2)}

    def power(exponent: int) -> Callable[[Mapping[str, torch.Tensor]], torch.Tensor]:
        return lambda weights: (weights["a"] ** exponent).sum()

    slopes = [gradient_at(RepeatedLoss(power(n), (), traces), point)["a"] for n in (2, 3, 2)]
    assert torch.equal(slopes[0], slopes[2])
    assert torch.allclose(slopes[1], 3 * point["a"] ** 2)
