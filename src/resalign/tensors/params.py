"""Arithmetic on named tensors: a dict of tensors as one vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from resalign.lazy import torch

Params = Mapping[str, "torch.Tensor"]
_PART = 1 << 18, 1 << 26  # elements that are summed at once in float64, on the CPU and elsewhere


def zeros_like(x: Params) -> dict[str, torch.Tensor]:
    """A zero vector of the same shape."""
    return {name: torch.zeros_like(tensor) for name, tensor in x.items()}


def add(x: Params, y: Params, scale: float = 1.0) -> dict[str, torch.Tensor]:
    """``x + scale * y``, for equal names."""
    return {name: x[name] + scale * y[name] for name in x}


def scaled(x: Params, scale: float) -> dict[str, torch.Tensor]:
    """``scale * x``."""
    return {name: scale * tensor for name, tensor in x.items()}


def dot(x: Params, y: Params) -> torch.Tensor:
    """The inner product, a scalar in float64, as are its products."""
    pairs = ((part, other) for name in x for part, other in zip(_parts(x[name]), _parts(y[name]), strict=True))
    return torch.stack([part.double() @ other.double() for part, other in pairs]).sum()


def norm(x: Params) -> float:
    """The Euclidean norm, summed in float64."""
    parts = [part for tensor in x.values() for part in _parts(tensor)]
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(parts, 2, dtype=torch.float64))))


def _parts(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    row, size = tensor.reshape(-1), _PART[tensor.device.type != "cpu"]
    return row.split(size) if len(row) > size else (row,)


def shapes_of(x: Params) -> dict[str, torch.Size]:
    """The shape of every tensor."""
    return {name: tensor.shape for name, tensor in x.items()}


def stacked(x: Params) -> torch.Tensor:
    """Named tensors as one vector, (N,).

    Raises:
        ValueError: If they differ in dtype: the vector would have the widest one, and so would all that is made of it.
    """
    if len(dtypes := {tensor.dtype for tensor in x.values()}) > 1:
        raise ValueError(f"one vector has one dtype, got {sorted(map(str, dtypes))}")
    return torch.cat([tensor.reshape(-1) for tensor in x.values()])


def unstacked(vector: torch.Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, torch.Tensor]:
    """The inverse of :func:`stacked`, in its memory."""
    parts = vector.split([shape.numel() for shape in shapes.values()])
    return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def without_conflict(x: Params, y: Params) -> dict[str, torch.Tensor]:
    """``x − min(0, ⟨x, y⟩ / ‖y‖²) y``: x without what of it points against y; x itself where nothing does, or y is 0.

    Source: gradient surgery, Yu 2020, arXiv 2001.06782; with one stored gradient also GEM, Lopez-Paz 2017, Eq. 11.
    """
    pairing, size = float(dot(x, y)), float(dot(y, y))
    return dict(x) if pairing >= 0 or size == 0 else add(x, y, -pairing / size)  # NaN where either has one


def leaves(x: Params) -> dict[str, torch.Tensor]:
    """The same tensors as leaves of a new graph; they share their memory, and are not for changing in place."""
    return {name: tensor.detach().requires_grad_() for name, tensor in x.items()}


def detached(x: Params, *, requires_grad: bool = False) -> dict[str, torch.Tensor]:
    """Copies outside the graph, as leaves."""
    return {name: tensor.detach().clone().requires_grad_(requires_grad) for name, tensor in x.items()}


def gradient(loss: torch.Tensor, x: Params) -> dict[str, torch.Tensor]:
    """The gradient of a scalar with respect to every tensor; zero where the loss does not depend on one."""
    names = list(x)
    grads = torch.autograd.grad(loss, [x[name] for name in names], allow_unused=True)
    return {name: torch.zeros_like(x[name]) if g is None else g for name, g in zip(names, grads, strict=True)}


def gradient_at(loss: Callable[[dict[str, torch.Tensor]], torch.Tensor], point: Params) -> dict[str, torch.Tensor]:
    """∇L at a point."""
    own = leaves(point)
    return gradient(loss(own), own)
