"""Captured computations, by a stand-in for a GPU that writes always the same memory; on one in tests/diffusion."""

from collections.abc import Callable, Sequence

import pytest
import torch

from resalign.tensors.cuda_graphs import Forward
from resalign.tensors.params import Params
from resalign.tensors.recording import TracingError
from resalign.tensors.tracing import Traces
from tests.tensors.test_tracing import draw, mixed, weighted


def on_the_cpu(forward: Forward, inputs: Sequence[torch.Tensor]) -> tuple[Callable[[], None], Sequence[torch.Tensor]]:
    """As :func:`resalign.tensors.cuda_graphs.cuda_graph`."""
    outputs = forward(*inputs)

    def again() -> None:
        for output, tensor in zip(outputs, forward(*inputs), strict=True):
            output.untyped_storage().copy_(tensor.untyped_storage())  # whatever part or view of it the output is

    return again, outputs


def test_results_are_those_of_the_inputs_and_stay() -> None:
    traces, inputs = Traces(after=0, capture=on_the_cpu), []
    for seed in range(3):
        inputs.append(({"a": draw(seed, 3, 4)}, {"b": draw(seed + 9, 4, 5)}))
    found = [traces.run("mixed", mixed, *pair) for pair in inputs]
    for result, pair in zip(found, inputs, strict=True):
        assert all(torch.equal(result[name], own) for name, own in mixed(*pair).items())


def test_products_are_of_the_latest_point_and_those_of_an_earlier_one_are_refused() -> None:
    traces, like = Traces(after=0, capture=on_the_cpu), {"v": draw(0, 3, 4)}

    def expected(x: Params, v: Params) -> torch.Tensor:
        return (x["a"].tanh() * v["v"]).sum(0)

    points = [{"a": draw(seed, 3, 4)} for seed in (1, 2)]
    vectors = [{"v": draw(seed, 3, 4)} for seed in (3, 4)]
    earlier = None
    for x in points:
        value, product = traces.linear("weighted", weighted(), like, x)
        assert torch.equal(value["value"], x["a"])
        found = [product(v)["row"] for v in vectors]
        assert all(torch.equal(own, expected(x, v)) for own, v in zip(found, vectors, strict=True))
        if earlier:
            with pytest.raises(TracingError, match="another point"):
                earlier(vectors[0])
        earlier = product
