"""Computations that repeat with other numbers: recorded once as a list of tensor operations, and replayed.

A replay runs the operations of the first run on the same kernels in the same order, so that its bits are the same. What
it leaves out is the work between them: the modules' Python, autograd's bookkeeping, views of views.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from resalign.lazy import torch
from resalign.tensors.cuda_graphs import Capture, Captured, cuda_graph
from resalign.tensors.params import Params, leaves, shapes_of, stacked, unstacked

Named = dict[str, "torch.Tensor"]
Loss = Callable[[Params], "torch.Tensor"]
WeightsOf = Callable[[Params, Params], Params]
Replay = Callable[[Sequence["torch.Tensor"]], Sequence["torch.Tensor"]]
Product = Callable[[Params], Named]
# Recording costs about as much time as this many runs save.
WORTHWHILE = 200


class TracingError(RuntimeError):
    """A computation whose replay would not be what it was when it was recorded."""


class Traces:
    """The computations of one model that repeat, by what they compute and by the shapes of what they get."""

    def __init__(self, after: int = WORTHWHILE, capture: Capture | None = None) -> None:
        """Records a computation when it has run ``after`` times, and captures it as one launch where that is given."""
        self._after, self._capture = after, capture
        self._known: dict[Hashable, list[_Computation]] = {}

    def run(self, what: Hashable, function: Callable[..., Named], *inputs: Params) -> Named:
        """``function(*inputs)``.

        Args:
            what: Equal for functions that compute the same of equal inputs.
            function: Of named tensors, to named tensors that share no memory with an input. Closed-over tensors are
                constants, and may only be changed in place.
            inputs: Its inputs; those that need a gradient become leaves within ``function``.

        Raises:
            TracingError: If the function changes an input.
        """
        known = self._computation(what, inputs)
        if self._is_due(known):
            known.recording = _recorded(function, inputs, self._capture)
        return known.recording(_tensors(inputs)) if known.recording else function(*inputs)

    def linear(
        self, what: Hashable, function: Callable[..., tuple[Named, Product]], vector: Params, *inputs: Params
    ) -> tuple[Named, Product]:
        """``function(*inputs)``: a value, and a linear map whose products with vectors share what they can.

        Args:
            what: As for :meth:`run`.
            function: Of named tensors, to the value and the map; otherwise as for :meth:`run`.
            vector: Names and shapes that the vectors have; its numbers do not matter.
            inputs: As for :meth:`run`.

        Raises:
            TracingError: If a product changes what the next one needs.
        """
        known = self._computation(what, [vector, *inputs])
        if self._is_due(known):
            known.recording = _recorded_linear(function, inputs, vector, self._capture)
        if known.recording:
            return known.recording.linear(_tensors(inputs))
        value, product = function(*inputs)

        def counted(x: Params) -> Named:
            known.runs += 1
            return product(x)

        return value, counted

    def _computation(self, what: Hashable, inputs: Sequence[Params]) -> _Computation:
        """The one with these shapes, found by comparison: to hash hundreds of shapes takes longer."""
        form = [*map(_form, inputs)]
        candidates = self._known.setdefault(what, [])
        found = next((known for known in candidates if known.form == form), None)
        if found is None:
            candidates.append(found := _Computation(form))
        return found

    def _is_due(self, known: _Computation) -> bool:
        known.runs += 1
        return known.runs > self._after and known.recording is None


def captured() -> Traces:
    """Recordings that are CUDA graphs, which gain so much that they are made at once."""
    return Traces(after=2, capture=cuda_graph)


@dataclass
class _Computation:
    """A computation on inputs of one form."""

    form: list[Any]
    runs: int = 0
    recording: _Recording | None = None


@dataclass(frozen=True)
class FrozenLoss:
    """A scalar loss of named weights on given data: among draws of one loss only the data differ.

    Attributes:
        function: (weights, *data) → scalar. Equal for losses that compute the same, and hashable.
        data: Its tensors.
        traces: Of the model that it runs.
    """

    function: Callable[..., torch.Tensor]
    data: tuple[Params, ...]
    traces: Traces

    def __call__(self, weights: Params) -> torch.Tensor:
        """The loss."""
        return self.function(weights, *self.data)


def loss_at(loss: Loss, weights: WeightsOf, start: Params | None = None) -> Loss:
    """The loss of variables ψ, whose weights are ``weights(start, ψ)``; equal maps must compare as equal."""
    start = start or {}
    if isinstance(loss, FrozenLoss):
        return replace(loss, function=_OfVariables(loss.function, weights), data=(start, *loss.data))
    return lambda variables: loss(weights(start, variables))


def loss_at_both(loss: Loss, weights: WeightsOf, names: Iterable[str]) -> Loss:
    """The same as a loss of one dict, which has the start by its ``names``, and the variables."""
    own = frozenset(names)
    if isinstance(loss, FrozenLoss):
        return replace(loss, function=_OfBoth(loss.function, weights, own))
    return lambda both: _OfBoth(loss, weights, own)(both)


@dataclass(frozen=True)
class _OfVariables:
    function: Callable[..., torch.Tensor]
    weights: WeightsOf

    def __call__(self, variables: Params, start: Params, *data: Params) -> torch.Tensor:
        return self.function(self.weights(start, variables), *data)


@dataclass(frozen=True)
class _OfBoth:
    function: Callable[..., torch.Tensor]
    weights: WeightsOf
    names: frozenset[str]

    def __call__(self, both: Params, *data: Params) -> torch.Tensor:
        start = {name: tensor for name, tensor in both.items() if name in self.names}
        variables = {name: tensor for name, tensor in both.items() if name not in self.names}
        return self.function(self.weights(start, variables), *data)


@dataclass(frozen=True)
class Rows:
    """Groups of named tensors as a row each, so that arithmetic is one operation and not one for each of hundreds.

    Called it is a map of :func:`loss_at`: from rows to the tensors by name.

    Attributes:
        groups: The shapes of a group's tensors by name, by the group's name; as pairs, which can be hashed.
    """

    groups: tuple[tuple[str, tuple[tuple[str, torch.Size], ...]], ...]

    @classmethod
    def of(cls, **groups: Params) -> Rows:
        """The rows of some tensors."""
        return cls(tuple((group, tuple(shapes_of(named).items())) for group, named in groups.items()))

    def shapes(self, group: str) -> dict[str, torch.Size]:
        """Of a group's tensors by name."""
        return dict(dict(self.groups)[group])

    def row(self, group: str, tensors: Params) -> Named:
        """A group as its row, whatever the order of the tensors."""
        return {group: stacked({name: tensors[name] for name in self.shapes(group)}).detach()}

    def named(self, group: str, rows: Params) -> Named:
        """A group's tensors, in the memory of its row."""
        return unstacked(rows[group], self.shapes(group))

    def __call__(self, _: Params, rows: Params) -> Named:
        """All tensors by name."""
        return {name: tensor for group, _ in self.groups for name, tensor in self.named(group, rows).items()}


def value_and_gradient(
    loss: Loss, point: Params, variables: Sequence[str] | None = None, *, fill: bool = True
) -> tuple[torch.Tensor, Named]:
    """L and ∇L at a point, by the names ``variables``, or by all; replayed where the loss is frozen.

    A variable that the loss does not depend on has a gradient of zero, or is left out if not ``fill``.
    """
    names = tuple(point if variables is None else variables)

    def measured(at: Params, *data: Params) -> Named:
        own = leaves({name: at[name] for name in names})
        value = loss.function({**at, **own}, *data) if isinstance(loss, FrozenLoss) else loss({**at, **own})
        slopes = zip(names, torch.autograd.grad(value, list(own.values()), allow_unused=True), strict=True)
        return {"": value.detach(), **{name: slope for name, slope in slopes if slope is not None}}

    if isinstance(loss, FrozenLoss):
        found = loss.traces.run(("gradient", loss.function, names), measured, point, *loss.data)
    else:
        found = measured(point)
    value = found.pop("")
    if not fill:
        return value, found
    return value, {name: found[name] if name in found else torch.zeros_like(point[name]) for name in names}


def gradient_at(loss: Loss, point: Params) -> Named:
    """∇L at a point."""
    return value_and_gradient(loss, point)[1]


# --- recordings -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Recording:
    """A computation from tensors to named tensors, of a linear map in two parts.

    Attributes:
        replay: Of a linear map what does not depend on the vector: its value, then what products need.
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
        return dict(zip(self.names, _own(self.replay, self.replay(tensors)), strict=True))

    def linear(self, tensors: Sequence[torch.Tensor]) -> tuple[Named, Product]:
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


def _recorded(function: Callable[..., Named], inputs: Sequence[Params], capture: Capture | None) -> _Recording:
    names: tuple[str, ...] = ()

    def flat(*tensors: torch.Tensor) -> list[torch.Tensor]:
        nonlocal names
        found = function(*_named(tensors, inputs))
        names = tuple(found)
        return list(found.values())

    graph = _operations(flat, _tensors(inputs))
    _check_unchanged(graph, [node for node in graph.graph.nodes if node.op == "placeholder"])
    return _Recording(_replayed(graph, capture), names)


def _recorded_linear(
    function: Callable[..., tuple[Named, Product]], inputs: Sequence[Params], vector: Params, capture: Capture | None
) -> _Recording:
    names: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()

    def flat(*tensors: torch.Tensor) -> list[torch.Tensor]:
        nonlocal names, rows
        *given, direction = _named(tensors, [*inputs, vector])
        value, product = function(*given)
        found = product(direction)
        names, rows = tuple(value), tuple(found)
        return [*value.values(), *found.values()]

    graph = _operations(flat, _tensors([*inputs, vector]))
    first, second = _parted(graph, values=len(names), vectors=len(vector))
    return _Recording(_replayed(first, capture), names, _replayed(second, capture), rows, tuple(vector))


def _operations(function: Callable[..., list[torch.Tensor]], tensors: Sequence[torch.Tensor]) -> torch.fx.GraphModule:
    """What a function of tensors does, as a graph of operations without the ones that only rename a tensor."""
    from torch.fx.experimental.proxy_tensor import make_fx

    # Fake tensors have shapes and no numbers: nothing is computed, and a number that decides something is an error.
    # Each input is an object of its own, since one that is given twice would be taken for one input.
    try:
        graph = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*(x.detach() for x in tensors))
    except RuntimeError as error:
        raise TracingError(f"a computation cannot be recorded, as one that depends on a number: {error}") from error
    for node in list(graph.graph.nodes):
        if node.target in (torch.ops.aten.alias.default, torch.ops.aten.detach.default):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.recompile()
    return graph


def _parted(graph: torch.fx.GraphModule, *, values: int, vectors: int) -> tuple[torch.fx.GraphModule, ...]:
    """Splits a linear map's graph into what does not depend on the vector, its last inputs, and what does."""
    nodes = list(graph.graph.nodes)
    inputs, (output,) = [n for n in nodes if n.op == "placeholder"], nodes[-1].args
    dependent = set(inputs[-vectors:])
    for node in nodes[:-1]:
        if dependent.intersection(node.all_input_nodes):
            dependent.add(node)
    second = [node for node in nodes[:-1] if node in dependent]
    before = [node for node in nodes[:-1] if node not in dependent]
    products = output[values:]
    wanted = {n for node in second for n in node.all_input_nodes} | {n for n in products if n}
    kept = [node for node in before if node in wanted]
    _check_unchanged(graph, [*inputs, *before], second)
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
        schema = getattr(node.target, "_schema", None)
        if schema is None or not schema.is_mutable:
            continue
        base = node.args[0]
        while base.op == "call_function" and _is_view(base):
            base = base.args[0]
        if base in held:
            raise TracingError(f"{node.target} changes {base} in place, which the next replay needs")


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


def _tensors(inputs: Iterable[Params]) -> list[torch.Tensor]:
    return [tensor for named in inputs for tensor in named.values()]


def _named(tensors: Sequence[torch.Tensor], like: Sequence[Params]) -> list[Named]:
    remaining = iter(tensors)
    return [{name: next(remaining) for name in named} for named in like]


def _form(named: Params) -> Any:
    """What a recording depends on of named tensors."""
    return tuple(named), tuple((t.shape, t.stride(), t.dtype, t.device) for t in named.values())
