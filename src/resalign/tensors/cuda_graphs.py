"""Recorded computations as single launches of a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from resalign.lazy import torch

Forward = Callable[..., Sequence["torch.Tensor"]]
# Makes of a function and the tensors that it will always read: what runs it again, and the tensors that it writes.
Capture = Callable[[Forward, Sequence["torch.Tensor"]], tuple[Callable[[], None], Sequence["torch.Tensor"]]]


def cuda_graph(forward: Forward, inputs: Sequence[torch.Tensor]) -> tuple[Callable[[], None], Sequence[torch.Tensor]]:
    """A CUDA graph of ``forward(*inputs)``, whose first replay is held against the function to the bit.

    Raises:
        RuntimeError: If they differ, an operation cannot be captured, or an input is not on the GPU: its number would
            be captured, too.
    """
    if elsewhere := {tensor.device.type for tensor in inputs} - {"cuda"}:
        raise RuntimeError(f"a CUDA graph has its inputs on the GPU, got one on {elsewhere.pop()}")
    before = torch.cuda.Stream()  # libraries set themselves up in a first run, which must not be in the graph
    before.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(before):
        expected = [tensor.clone() for tensor in forward(*inputs)]
    torch.cuda.current_stream().wait_stream(before)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = forward(*inputs)
    graph.replay()
    if not all(
        torch.equal(found.isnan(), own.isnan()) and torch.equal(found.nan_to_num(), own.nan_to_num())
        for found, own in zip(outputs, expected, strict=True)
    ):
        raise RuntimeError("a CUDA graph does not repeat the computation that it was captured from")
    return graph.replay, outputs


class Captured:
    """A recording that reads and writes always the same memory, so that it is one launch.

    Attributes:
        replays: How often it ran; what it wrote before the latest is overwritten.
    """

    def __init__(self, forward: Forward, capture: Capture) -> None:
        """Captures nothing yet: that takes the inputs."""
        self._forward, self._capture, self.replays = forward, capture, 0

    def __call__(self, tensors: Sequence[torch.Tensor], shared: int = 0) -> Sequence[torch.Tensor]:
        """Its outputs, until the next call.

        Args:
            tensors: The inputs, which are copied.
            shared: So many of the first ones are always the same tensors, and are not.
        """
        if not self.replays:
            self._inputs = [*tensors[:shared], *(tensor.detach().clone() for tensor in tensors[shared:])]
            self._again, self._outputs = self._capture(self._forward, self._inputs)
        with torch.no_grad():
            torch._foreach_copy_(self._inputs[shared:], list(tensors[shared:]))
        self._again()
        self.replays += 1
        return self._outputs
