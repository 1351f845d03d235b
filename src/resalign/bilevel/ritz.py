"""Ritz values: what a solver's own products tell of the spectrum, at the price of a few scalars."""

from __future__ import annotations

import math

from resalign.lazy import torch
from resalign.tensors.named import Named, dot

_SMALLEST = 1e-200  # a squared length below which a recurrence has vanished


class RitzPairs:
    """Extreme Ritz values over the planes of consecutive vectors of a recurrence v ← c₀v + c₁Av.

    Each plane span(v_k, v_{k+1}) gives two values inside the spectrum of A (Saad 2011, Numerical Methods for Large
    Eigenvalue Problems, Section 4.3); inner products alone are kept, no vector.
    """

    def __init__(self) -> None:
        """Starts without a value."""
        self._values: list[float] = []
        self._last: tuple[float, float, float] | None = None

    def observe(self, v: Named, av: Named, c0: float, c1: float) -> None:
        """Takes the next v with Av; c₀ and c₁ tell how v arose from the one before (ignored for the first)."""
        vv, vav, avav = (float(dot(a, b)) for a, b in ((v, v), (v, av), (av, av)))
        if vv > _SMALLEST and math.isfinite(avav):
            self._values.append(vav / vv)
            if self._last is not None and self._last[0] > _SMALLEST:
                pp, pap, apap = self._last
                gram = [[pp, c0 * pp + c1 * pap], [c0 * pp + c1 * pap, vv]]
                projected = [[pap, c0 * pap + c1 * apap], [c0 * pap + c1 * apap, vav]]
                self._values += _generalised_eigenvalues(_matrix(projected), _matrix(gram))
        self._last = (vv, vav, avav)

    @property
    def extremes(self) -> tuple[float, float]:
        """(smallest, largest); NaN if there is none."""
        return (min(self._values), max(self._values)) if self._values else (math.nan, math.nan)


def _matrix(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def _generalised_eigenvalues(projected: torch.Tensor, gram: torch.Tensor) -> list[float]:
    """Eigenvalues of a 2 x 2 pencil; none where the two vectors are parallel up to rounding."""
    scale = gram.diagonal().rsqrt()
    gram, projected = gram * torch.outer(scale, scale), projected * torch.outer(scale, scale)
    if not projected.isfinite().all() or 1 - gram[0, 1] ** 2 < 1e-6:
        return []
    whitening = torch.linalg.inv(torch.linalg.cholesky(gram))
    values: list[float] = torch.linalg.eigvalsh(whitening @ projected @ whitening.T).tolist()
    return values


def tridiagonal_extremes(diagonal: list[float], off_diagonal: list[float]) -> tuple[float, float]:
    """Extreme eigenvalues of a Lanczos matrix, from its diagonal (k,) and what stands beside it (k − 1,)."""
    if not diagonal:
        return math.nan, math.nan
    middle, beside = (torch.tensor(row, dtype=torch.float64) for row in (diagonal, off_diagonal[: len(diagonal) - 1]))
    values = torch.linalg.eigvalsh(middle.diag() + beside.diag(1) + beside.diag(-1))
    return float(values[0]), float(values[-1])


def of_hessian(extremes: tuple[float, float]) -> tuple[float, float]:
    """(γλ_min, γλ_max) of H from extremes of I + γH."""
    return extremes[0] - 1, extremes[1] - 1
