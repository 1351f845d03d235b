"""Arithmetic on named tensors: a dict of tensors as one vector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from resalign.lazy import torch

Params = Mapping[str, "torch.Tensor"]
_PART = 1 << 16, 1 << 26  # elements in a row, on the CPU, whose caches it fits, and elsewhere


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
    pairs = zip(_rows(x), _rows({name: y[name] for name in x}), strict=True)
    return torch.stack([row.double() @ other.double() for row, other in pairs]).sum()


def norm(x: Params) -> float:
    """The Euclidean norm, summed in float64."""
    sizes = [torch.linalg.vector_norm(row, dtype=torch.float64) for row in _rows(x)]
    return float(torch.linalg.vector_norm(torch.stack(sizes)))


def _rows(x: Params) -> Iterator[torch.Tensor]:
    """All elements in order, in few rows, since each costs an operation, of a length that float64 has room for."""
    together: list[torch.Tensor] = []
    elements = 0
    for tensor in x.values():
        row, size = tensor.reshape(-1), _PART[tensor.device.type != "cpu"]
        if together and elements + tensor.numel() > size:
            yield torch.cat(together)
            together, elements = [], 0
        *whole, rest = row.split(size) if tensor.numel() > size else (row,)
        yield from whole
        together.append(rest)
        elements += rest.numel()
    if together:
        yield torch.cat(together)


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
    return torch.cat([tensor if tensor.dim() == 1 else tensor.reshape(-1) for tensor in x.values()])


def unstacked(vector: torch.Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, torch.Tensor]:
    """The inverse of :func:`stacked`, in its memory."""
    parts = vector.split([shape.numel() for shape in shapes.values()])
    named = zip(shapes.items(), parts, strict=True)
    return {name: part if len(shape) == 1 else part.view(shape) for (name, shape), part in named}


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
