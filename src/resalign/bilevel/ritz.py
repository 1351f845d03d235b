"""Extreme Ritz values of a solver's matrix, from a few scalars of the products that the solver takes anyway."""

from __future__ import annotations

import math

from resalign.lazy import torch
from resalign.tensors.params import Params, dot

_SMALLEST = 1e-200  # a squared length below which a recurrence has vanished


class RitzPairs:
    """Extreme Ritz values over the planes of consecutive vectors of a recurrence v ← c₀v + c₁Av.

    Each plane span(v_k, v_{k+1}) gives two values inside the spectrum of A (Saad 2011, Numerical Methods for Large
    Eigenvalue Problems, Section 4.3). Only inner products are kept, no vector.
    """

    def __init__(self, c0: float, c1: float) -> None:
        """Takes the recurrence's coefficients c₀ and c₁."""
        self._c0, self._c1 = c0, c1
        self._values: list[float] = []
        self._last: tuple[float, float, float] | None = None

    def observe(self, v: Params, av: Params) -> None:
        """Takes the next v and Av."""
        vv, vav, avav = (float(dot(a, b)) for a, b in ((v, v), (v, av), (av, av)))
        if vv > _SMALLEST and math.isfinite(avav):
            self._values.append(vav / vv)
            if self._last is not None and self._last[0] > _SMALLEST:
                pp, pap, apap = self._last
                pv, pav = self._c0 * pp + self._c1 * pap, self._c0 * pap + self._c1 * apap
                self._values += _generalised_eigenvalues([[pap, pav], [pav, vav]], [[pp, pv], [pv, vv]])
        self._last = (vv, vav, avav)

    @property
    def extremes(self) -> tuple[float, float]:
        """(smallest, largest); NaN if there is none."""
        return (min(self._values), max(self._values)) if self._values else (math.nan, math.nan)


def tridiagonal_extremes(diagonal: list[float], off_diagonal: list[float]) -> tuple[float, float]:
    """Extreme eigenvalues of a Lanczos matrix, from its diagonal (k,) and the first k − 1 off-diagonal entries."""
    if not diagonal:
        return math.nan, math.nan
    middle, beside = (torch.tensor(row, dtype=torch.float64) for row in (diagonal, off_diagonal[: len(diagonal) - 1]))
    values = torch.linalg.eigvalsh(middle.diag() + beside.diag(1) + beside.diag(-1))
    return float(values[0]), float(values[-1])


def _generalised_eigenvalues(projected: list[list[float]], gram: list[list[float]]) -> list[float]:
    """Eigenvalues of a 2 x 2 pencil; none where the two vectors are parallel up to rounding."""
    a, g = (torch.tensor(rows, dtype=torch.float64) for rows in (projected, gram))
    scale = g.diagonal().rsqrt()
    g, a = g * torch.outer(scale, scale), a * torch.outer(scale, scale)
    if not a.isfinite().all() or 1 - g[0, 1] ** 2 < 1e-6:
        return []
    whitening = torch.linalg.inv(torch.linalg.cholesky(g))
    values: list[float] = torch.linalg.eigvalsh(whitening @ a @ whitening.T).tolist()
    return values
