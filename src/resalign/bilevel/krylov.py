"""The Hessian on the Krylov space of one vector, in which every solver's first iterates lie, whatever γ is."""

from __future__ import annotations

from dataclasses import dataclass

from resalign.bilevel.solution import System
from resalign.lazy import torch
from resalign.tensors.params import Params, norm, shapes_of, stacked, unstacked
from resalign.tensors.recording import Product

_NAME = "krylov"


@dataclass(frozen=True)
class Krylov:
    """span{g, Hg, …, H^(m−1) g}.

    A solver that starts from zero and takes fewer than m products with I + γH never leaves it. Its iterates on the
    projected system are therefore, lifted, its iterates on the whole one (to rounding), and m products with H serve
    every solver and every γ.

    Attributes:
        basis: Orthonormal rows over the stacked weights, (m, N); the first is g/‖g‖.
        projected: H in this basis, tridiagonal, (m, m).
        rhs_norm: ‖g‖.
    """

    basis: torch.Tensor
    projected: torch.Tensor
    rhs_norm: float

    def system(self, gamma: float) -> System:
        """(I + γH) x = g in this basis."""
        rhs = torch.zeros(len(self.projected), dtype=self.basis.dtype, device=self.basis.device)
        rhs[0] = self.rhs_norm
        return System(lambda v: {_NAME: self.projected @ v[_NAME]}, {_NAME: rhs}, gamma)

    def lifted(self, x: Params) -> torch.Tensor:
        """A solution of such a system over the stacked weights, (N,)."""
        return x[_NAME] @ self.basis

    @property
    def extremes(self) -> tuple[float, float]:
        """The smallest and the largest Ritz value of H; they lie inside its spectrum."""
        values = torch.linalg.eigvalsh(self.projected)
        return float(values[0]), float(values[-1])


def krylov_space(hvp: Product, rhs: Params, size: int) -> Krylov:
    """Lanczos' process from g, each vector orthogonalised twice against all before it.

    Args:
        hvp: v ↦ Hv.
        rhs: g.
        size: m, and the number of products; the space is smaller where it is invariant under H before.

    Raises:
        ValueError: If g is zero: it spans nothing.

    Source: Saad 2011, Numerical Methods for Large Eigenvalue Problems, Algorithm 6.5; "twice is enough": Giraud 2005,
    Numer. Math. 101(1).
    """
    length = norm(rhs)
    if length == 0:
        raise ValueError("the right-hand side is zero: L_harm has no slope there, and every estimate of it is zero")
    shapes, first = shapes_of(rhs), stacked(rhs) / length
    basis = first.new_empty(size, len(first))
    basis[0] = first
    diagonal: list[float] = []
    beside: list[float] = []
    for count in range(1, size + 1):
        rows, v = basis[:count], basis[count - 1]
        w = stacked(hvp(unstacked(v, shapes)))
        diagonal.append(float(v @ w))
        for _ in range(2):
            w -= (rows @ w) @ rows
        off = float(w.norm())
        scale = max(map(abs, (*diagonal, *beside)))
        if count == size or not off > torch.finfo(w.dtype).eps * scale:
            break
        beside.append(off)
        basis[count] = w / off
    off_diagonal = torch.tensor(beside, dtype=first.dtype, device=first.device)
    projected = torch.diag(torch.tensor(diagonal, dtype=first.dtype, device=first.device))
    projected += torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1)
    return Krylov(basis[: len(diagonal)], projected, length)
