"""A computation as a list of tensor operations, repeated without the Python and autograd that made it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from resalign.lazy import torch
from resalign.tensors.cuda_graphs import Capture, Captured
from resalign.tensors.params import Params

Named = dict[str, "torch.Tensor"]
Product = Callable[[Params], Named]
Replay = Callable[[Sequence["torch.Tensor"]], Sequence["torch.Tensor"]]


class TracingError(RuntimeError):
    """A computation whose replay would not be what it was when it was recorded."""


@dataclass(frozen=True)
class Recording:
    """A computation from tensors to named tensors, of a linear map in two parts.

    Attributes:
        replay: Of a linear map its value, then what products need of the way there.
        names: Of the value's tensors.
        product: Of a linear map: what products need, then a vector, to a product.
        rows: Names of the product's tensors.
        columns: Names of the vector's tensors.
    """

    replay: Replay
    names: tuple[str, ...]
    product: Replay | None = None
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def __call__(self, tensors: Sequence[torch.Tensor]) -> Named:
        """The computation's result for other tensors."""
        return dict(zip(self.names, _own(self.replay, self.replay(tensors)), strict=True))

    def linear(self, tensors: Sequence[torch.Tensor]) -> tuple[Named, Product]:
        """A linear map's value and products at other tensors."""
        first, second, count = self.replay, self.product, len(self.names)
        assert second
        found = first(tensors)
        kept, replays = found[count:], first.replays if isinstance(first, Captured) else 0

        def multiplied(vector: Params) -> Named:
            given = [*kept, *(vector[name] for name in self.columns)]
            if isinstance(first, Captured) and first.replays != replays:
                raise TracingError("a linear map has been taken at another point; only the latest has products")
            products = second(given, len(kept)) if isinstance(second, Captured) else second(given)
            return dict(zip(self.rows, _own(second, products), strict=True))

        return dict(zip(self.names, _own(first, found[:count]), strict=True)), multiplied


def _own(replay: Replay, tensors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Tensors that no later replay overwrites."""
    return [tensor.clone() for tensor in tensors] if isinstance(replay, Captured) else tensors


def recorded(function: Callable[..., Named], inputs: Sequence[Params], capture: Capture | None) -> Recording:
    """Records a function of named tensors; see :meth:`resalign.tensors.tracing.Traces.run`."""
    names: tuple[str, ...] = ()

    def flat(*tensors: torch.Tensor) -> list[torch.Tensor]:
        nonlocal names
        found = function(*_named(tensors, inputs))
        names = tuple(found)
        return list(found.values())

    graph = _operations(flat, tensors_of(inputs))
    _check_unchanged(graph, [node for node in graph.graph.nodes if node.op == "placeholder"])
    return Recording(_replayed(graph, capture), names)


def recorded_linear(
    function: Callable[..., tuple[Named, Product]], inputs: Sequence[Params], vector: Params, capture: Capture | None
) -> Recording:
    """Records a linear map; see :meth:`resalign.tensors.tracing.Traces.linear`."""
    names: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()

    def flat(*tensors: torch.Tensor) -> list[torch.Tensor]:
        nonlocal names, rows
        *given, direction = _named(tensors, [*inputs, vector])
        value, product = function(*given)
        found = product(direction)
        names, rows = tuple(value), tuple(found)
        return [*value.values(), *found.values()]

    graph = _operations(flat, tensors_of([*inputs, vector]))
    first, second = _parted(graph, values=len(names), vectors=len(vector))
    return Recording(_replayed(first, capture), names, _replayed(second, capture), rows, tuple(vector))


def _operations(function: Callable[..., list[torch.Tensor]], tensors: Sequence[torch.Tensor]) -> torch.fx.GraphModule:
    """What a function of tensors does, as a graph of operations without the ones that only rename a tensor."""
    from torch.fx.experimental.proxy_tensor import make_fx

    # Fake tensors have shapes and no numbers: nothing is computed, and a number that decides something is an error.
    # Each input is an object of its own, since one that is given twice would be taken for one input.
    try:
        graph = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*(x.detach() for x in tensors))
    except RuntimeError as error:
        raise TracingError(f"torch cannot record it, as where a number decides what is computed: {error}") from error
    for node in list(graph.graph.nodes):
        if node.target in (torch.ops.aten.alias.default, torch.ops.aten.detach.default):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.recompile()
    return graph


def _parted(graph: torch.fx.GraphModule, *, values: int, vectors: int) -> tuple[torch.fx.GraphModule, ...]:
    """Splits a linear map's graph into what its value needs, and the rest, which a product does anew.

    What a product needs besides does not depend on the vector, either; but to keep it would undo what recomputes
    activations to save memory.
    """
    nodes = list(graph.graph.nodes)
    inputs, (output,) = [n for n in nodes if n.op == "placeholder"], nodes[-1].args
    first, vector = set(output[:values]), set(inputs[-vectors:])
    for node in reversed(nodes):
        if node in first:
            first.update(node.all_input_nodes)
    first.update(set(inputs) - vector)
    first.update(n for n in nodes if n.target is operator.getitem and n.args[0] in first)  # tensors of several
    before = [node for node in nodes[:-1] if node in first]
    second = [node for node in nodes[:-1] if node not in first]
    products = output[values:]
    wanted = {n for node in second for n in node.all_input_nodes} | set(products)
    kept = [node for node in before if node in wanted]
    _check_unchanged(graph, [*inputs, *before], second)
    _check_order(before, second, nodes)
    return (
        _module(graph, before, [], [*output[:values], *kept]),
        _module(graph, second, kept, list(products)),
    )


def _module(
    graph: torch.fx.GraphModule, nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any]
) -> torch.fx.GraphModule:
    """Some of a graph's operations as a graph of their own, to which ``inputs`` are given besides."""
    part, copies = torch.fx.Graph(), dict[Any, Any]()
    for node in inputs:
        copies[node] = part.placeholder(node.name)
    for node in nodes:
        copies[node] = part.node_copy(node, copies.__getitem__)
    part.output([copies[node] for node in outputs])
    return torch.fx.GraphModule(graph, part)


def _check_unchanged(graph: torch.fx.GraphModule, held: Iterable[Any], by: Iterable[Any] | None = None) -> None:
    """Raises where an operation changes in place what has to stay for the next replay."""
    held = set(held)
    for node in graph.graph.nodes if by is None else by:
        if _is_in_place(node) and (base := _base(node.args[0])) in held:
            raise TracingError(f"{node.target} changes {base} in place, which the next replay needs")


def _check_order(before: Sequence[Any], second: Sequence[Any], nodes: Sequence[Any]) -> None:
    """Raises where a product would read what the value has changed in place since: it comes first now."""
    place = {node: index for index, node in enumerate(nodes)}
    read: dict[Any, int] = {}  # where the rest reads a tensor for the first time
    for node in second:
        for tensor in map(_base, node.all_input_nodes):
            read.setdefault(tensor, place[node])
    for node in filter(_is_in_place, before):
        if read.get(base := _base(node.args[0]), place[node]) < place[node]:
            raise TracingError(f"{node.target} changes {base} in place, which a product reads as it was before")


def _base(node: Any) -> Any:
    """What has the memory that a node shows."""
    while node.op == "call_function" and _is_view(node):
        node = node.args[0]
    return node


def _is_in_place(node: Any) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _is_view(node: Any) -> bool:
    """Whether an operation's output shares the memory of its first input, as what an in-place one returns does."""
    if node.target is operator.getitem:  # of several outputs; where those are new, so is what it is taken from
        return True
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(argument.alias_info is not None for argument in schema.arguments[:1])


# Operations that torch's Python functions of the same arguments call with less ado than its registry does.
_FUNCTIONS = {
    **{f"{name}.default": name for name in ("t", "permute", "mm", "bmm", "addmm", "neg", "clone", "unsqueeze")},
    **{f"{name}.Tensor": name for name in ("add", "sub", "mul", "div")},
    **{f"{name}.Scalar": name for name in ("mul", "div")},
    **{"transpose.int": "transpose", "squeeze.dim": "squeeze", "sum.dim_IntList": "sum", "cat.default": "cat"},
    **{"convolution.default": "convolution", "view.default": "Tensor.view", "expand.default": "Tensor.expand"},
    **{"native_group_norm.default": "native_group_norm", "native_layer_norm.default": "native_layer_norm"},
}


def _replayed(graph: torch.fx.GraphModule, capture: Capture | None) -> Replay:
    faster = {f"aten.{name}": operator.attrgetter(other) for name, other in _FUNCTIONS.items()}
    for node in graph.graph.nodes:
        if str(node.target) in faster:
            node.target = faster[str(node.target)](torch)
    graph.recompile()

    def forward(*tensors: torch.Tensor) -> Sequence[torch.Tensor]:
        with torch.no_grad():
            found: Sequence[torch.Tensor] = graph.forward(*tensors)
        return found

    return Captured(forward, capture) if capture else lambda tensors: forward(*tensors)


def tensors_of(inputs: Iterable[Params]) -> list[torch.Tensor]:
    """All tensors, in order."""
    return [tensor for named in inputs for tensor in named.values()]


def _named(tensors: Sequence[torch.Tensor], like: Sequence[Params]) -> list[Named]:
    remaining = iter(tensors)
    return [{name: next(remaining) for name in named} for named in like]


def form_of(named: Params) -> Any:
    """What a recording depends on of named tensors."""
    return tuple(named), tuple((t.shape, t.stride(), t.dtype, t.device) for t in named.values())
