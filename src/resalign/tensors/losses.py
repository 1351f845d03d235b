"""Losses as functions of named tensors, and their gradients; those that only differ in data share a recording."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from resalign.lazy import torch
from resalign.tensors.params import Params, leaves, shapes_of, stacked, unstacked
from resalign.tensors.recording import Named
from resalign.tensors.tracing import Traces

Loss = Callable[[Params], "torch.Tensor"]
WeightsOf = Callable[[Params, Params], Params]


@dataclass(frozen=True)
class RepeatedLoss:
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
    if isinstance(loss, RepeatedLoss):
        return replace(loss, function=_OfVariables(loss.function, weights), data=(start, *loss.data))
    return lambda variables: loss(weights(start, variables))


def loss_at_both(loss: Loss, weights: WeightsOf, names: Iterable[str]) -> Loss:
    """The same as a loss of one dict, which has the start by its ``names``, and the variables."""
    own = frozenset(names)
    if isinstance(loss, RepeatedLoss):
        return replace(loss, function=_OfBoth(loss.function, weights, own))
    return _OfBoth(loss, weights, own)


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
    """L and ∇L at a point, by the names ``variables``, or by all; replayed where the loss repeats.

    A variable that the loss does not depend on has a gradient of zero, or is left out if not ``fill``.
    """
    names = tuple(point if variables is None else variables)

    def measured(at: Params, *data: Params) -> Named:
        own = leaves({name: at[name] for name in names})
        value = loss.function({**at, **own}, *data) if isinstance(loss, RepeatedLoss) else loss({**at, **own})
        slopes = zip(names, torch.autograd.grad(value, list(own.values()), allow_unused=True), strict=True)
        return {"": value.detach(), **{name: slope for name, slope in slopes if slope is not None}}

    if isinstance(loss, RepeatedLoss):
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
