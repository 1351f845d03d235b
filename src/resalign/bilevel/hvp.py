"""Products of a loss's Hessian with vectors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Literal

from resalign.lazy import torch
from resalign.tensors.losses import Loss, RepeatedLoss, value_and_gradient
from resalign.tensors.params import Params, add, leaves, norm
from resalign.tensors.recording import Product

Mode = Literal["exact", "finite_difference"]


class Hessian:
    """∇²L at one point, or a block of it, by its products with vectors.

    Exact products share one graph of the gradient, which is made at the first of them and held as long as this object.
    """

    def __init__(
        self,
        loss: Loss,
        point: Params,
        variables: Collection[str],
        *,
        mode: Mode = "exact",
        rows: Collection[str] | None = None,
    ) -> None:
        """Takes the loss and the point; nothing is computed yet.

        Args:
            loss: A scalar function of named tensors; the same at every call (frozen batch, noise and timesteps).
            point: Where the Hessian is taken; shared, so that it must not be changed while this object is in use.
            variables: Names of ``point`` that a vector has; a vector is zero in the others.
            mode: ``exact`` is a double backward (Pearlmutter 1994) and needs attention that can be differentiated
                twice; ``finite_difference`` is the central difference of two gradients and costs first-order memory.
            rows: Names of a product, ``variables`` if None: with other names it is the block ∂²L/∂rows∂variables.
        """
        self._loss, self._point, self._mode = loss, dict(point), mode
        self._variables, self._rows = list(variables), list(variables if rows is None else rows)

    def gradient(self) -> dict[str, torch.Tensor]:
        """∇L by ``variables``: from the products' graph where there is one already."""
        if "_linearised" in vars(self):  # it is made by the first exact product
            return self._linearised[0]
        return value_and_gradient(self._loss, self._point, self._variables)[1]

    def product(self, vector: Params) -> dict[str, torch.Tensor]:
        """∇²L · vector, by ``rows``, for a vector that has the names ``variables``."""
        return self._linearised[1](vector) if self._mode == "exact" else self._difference(vector)

    @cached_property
    def _linearised(self) -> tuple[dict[str, torch.Tensor], Product]:
        """The gradient by ``variables``, and exact products."""
        loss, variables, rows = self._loss, self._variables, self._rows
        if not isinstance(loss, RepeatedLoss):
            return _linearised(loss, self._point, variables, rows)

        def linearised(point: Params, *data: Params) -> tuple[dict[str, torch.Tensor], Product]:
            return _linearised(lambda own: loss.function(own, *data), point, variables, rows)

        what = "hessian", loss.function, tuple(variables), tuple(rows)
        like = {name: self._point[name] for name in variables}
        return loss.traces.linear(what, linearised, like, self._point, *loss.data)

    def _difference(self, vector: Params) -> dict[str, torch.Tensor]:
        if norm(vector) == 0:
            return {name: torch.zeros_like(self._point[name]) for name in self._rows}
        step = difference_step(self._point, vector)
        ends = []
        for sign in (1.0, -1.0):
            shifted = self._point | add({n: self._point[n] for n in vector}, vector, sign * step)
            ends.append(value_and_gradient(self._loss, shifted, self._rows)[1])
        return {name: (ends[0][name] - ends[1][name]) / (2 * step) for name in self._rows}


def _linearised(
    loss: Loss, point: Params, variables: Sequence[str], rows: Sequence[str]
) -> tuple[dict[str, torch.Tensor], Product]:
    """∇L by ``variables``, and products of its Jacobian by ``rows``, all from one graph of the gradient."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    inner = leaves({name: point[name] for name in dict.fromkeys((*variables, *rows))})
    with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no double backward
        by = [inner[name] for name in variables]
        slopes = torch.autograd.grad(loss({**point, **inner}), by, create_graph=True, allow_unused=True)
    curved = {name: s for name, s in zip(variables, slopes, strict=True) if s is not None and s.requires_grad}

    def product(vector: Params) -> dict[str, torch.Tensor]:
        if not curved:  # the loss is affine in these tensors
            return {name: torch.zeros_like(point[name]) for name in rows}
        with sdpa_kernel(SDPBackend.MATH):  # of what a backward pass computes anew
            products = torch.autograd.grad(
                list(curved.values()),
                [inner[name] for name in rows],
                [vector[name] for name in curved],
                retain_graph=True,
                allow_unused=True,
            )
        found = zip(rows, products, strict=True)
        return {name: torch.zeros_like(point[name]) if part is None else part for name, part in found}

    found = zip(variables, slopes, strict=True)
    return {n: torch.zeros_like(point[n]) if s is None else s.detach() for n, s in found}, product


def hessian_vector_product(
    loss: Loss, point: Params, vector: Params, *, mode: Mode = "exact", wrt: Params | None = None
) -> dict[str, torch.Tensor]:
    """∇²L(point) · vector by the names of the vector, or of ``wrt``: a single product of :class:`Hessian`."""
    return Hessian(loss, point, vector, mode=mode, rows=wrt).product(vector)


def difference_step(point: Params, vector: Params) -> float:
    """The step of the central difference: ε^(1/3)(1 + rms(point))/‖vector‖, ε the dtype's machine precision.

    Source: Nocedal and Wright 2006, Numerical Optimization, Eq. 8.4 and 8.7, for directional differences. Deviation:
    the root mean square over the elements in place of the norm, which grows with the network's size and not with the
    length over which its loss bends; the displacement is about DARTS' 0.01 (Liu 2019, arXiv 1806.09055, Eq. 8).
    """
    eps = max(torch.finfo(tensor.dtype).eps for tensor in vector.values())
    count = sum(tensor.numel() for tensor in vector.values())
    rms = norm({n: point[n] for n in vector}) / count**0.5
    return float(eps ** (1 / 3) * (1 + rms) / norm(vector))
