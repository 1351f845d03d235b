"""Arithmetic on named tensors: a dict of tensors as one vector."""

from __future__ import annotations

from collections.abc import Mapping

from resalign.lazy import torch

Params = Mapping[str, "torch.Tensor"]


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
    """The inner product, a scalar accumulated in float64."""
    return torch.stack([(x[name].double() * y[name].double()).sum() for name in x]).sum()


def norm(x: Params) -> float:
    """The Euclidean norm."""
    return float(dot(x, x).sqrt())


def without_conflict(x: Params, y: Params) -> dict[str, torch.Tensor]:
    """``x − min(0, ⟨x, y⟩ / ‖y‖²) y``: x without what of it points against y; x itself where nothing does, or y is 0.

    Source: gradient surgery, Yu 2020, arXiv 2001.06782; with one stored gradient also GEM, Lopez-Paz 2017, Eq. 11.
    """
    pairing, size = float(dot(x, y)), float(dot(y, y))
    return dict(x) if pairing >= 0 or size == 0 else add(x, y, -pairing / size)  # NaN where either has one


def detached(x: Params, *, requires_grad: bool = False) -> dict[str, torch.Tensor]:
    """Copies outside the graph, as leaves."""
    return {name: tensor.detach().clone().requires_grad_(requires_grad) for name, tensor in x.items()}


def gradient(loss: torch.Tensor, x: Params) -> dict[str, torch.Tensor]:
    """The gradient of a scalar with respect to every tensor; zero where the loss does not depend on one."""
    names = list(x)
    grads = torch.autograd.grad(loss, [x[name] for name in names], allow_unused=True)
    return {name: torch.zeros_like(x[name]) if g is None else g for name, g in zip(names, grads, strict=True)}
