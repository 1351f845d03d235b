"""Curvature of a loss: trace and Frobenius norm of its Hessian, with the loss's change under displacements.

Proposition 1 of ResAlign replaces E L(θ + ξ) − L(θ) by (σ²/2d)·Tr(H) for E ξ = 0, E ξξᵀ = (σ²/d)·I. For a loss that is
bounded above and not below, such as a negated one, the signed trace falls also where the loss bends more, downwards;
‖H‖_F² does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from resalign.bilevel.hvp import Mode, hessian_vector_product
from resalign.lazy import torch
from resalign.tensors.losses import Loss, gradient_at
from resalign.tensors.params import Params, add, dot, norm, scaled
from resalign.tensors.steps import DivergenceError

# The losses of single examples (B,), as a function of named tensors; the same examples at every call.
ExampleLosses = Callable[[Params], "torch.Tensor"]
Progress = Callable[[Sequence[int]], Iterable[int]]


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` independent draws with its standard error."""

    mean: float
    standard_error: float
    n: int

    @classmethod
    def of(cls, values: torch.Tensor, *, what: str) -> Estimate:
        """Mean and standard error s/√n (ddof 1) of values (n,); NaN for the error of one value.

        Raises:
            DivergenceError: If a value is not finite.
        """
        if not torch.isfinite(values).all():
            raise DivergenceError(f"{what}: {values.tolist()} is not finite; the weights are beyond their range")
        error = float(values.std(correction=1)) / len(values) ** 0.5 if len(values) > 1 else math.nan
        return cls(float(values.mean()), error, len(values))


@dataclass(frozen=True)
class Sharpness:
    """The Hessian H of a loss at a point, by random probes.

    Attributes:
        loss: L, over examples.
        trace: Tr(H), signed.
        frobenius_squared: ‖H‖_F² = Σλ².
        gradient_norm: ‖∇L‖.
        size: d, the number of variables.
    """

    loss: Estimate
    trace: Estimate
    frobenius_squared: Estimate
    gradient_norm: float
    size: int


class FrozenLoss:
    """A loss as the mean over frozen examples, in batches that are in memory one at a time."""

    def __init__(self, batches: Sequence[ExampleLosses]) -> None:
        """Takes the example losses of equally large batches."""
        self._batches = batches

    def examples(self, point: Params) -> torch.Tensor:
        """The loss of every example (N,), without a graph."""
        with torch.no_grad():
            return torch.cat([batch(point).double() for batch in self._batches])

    def gradient(self, point: Params) -> dict[str, torch.Tensor]:
        """∇L(point)."""
        return _mean(gradient_at(loss, point) for loss in self._losses)

    def product(self, point: Params, vector: Params, mode: Mode) -> dict[str, torch.Tensor]:
        """∇²L(point) · vector."""
        return _mean(hessian_vector_product(loss, point, vector, mode=mode) for loss in self._losses)

    @property
    def _losses(self) -> list[Loss]:
        return [lambda point, batch=batch: batch(point).mean() for batch in self._batches]  # type: ignore[misc]


def sharpness(
    loss: FrozenLoss,
    point: Params,
    probes: int,
    generator: torch.Generator,
    *,
    mode: Mode = "exact",
    progress: Progress = iter,
) -> Sharpness:
    """Tr(H) = E zᵀHz and ‖H‖_F² = E‖Hz‖² over Rademacher z, both from the same products.

    Source: Hutchinson 1989, doi 10.1080/03610918908812806. Both are unbiased for any H; zᵀHz has the variance
    2(‖H‖_F² − Σ H_ii²), so that the trace of a diagonal Hessian is exact.

    Args:
        loss: L.
        point: θ.
        probes: Number of z.
        generator: Random stream of the probes; equal streams give every model the same probes.
        mode: How Hessian products are taken.
        progress: Wraps the range of probes.

    Raises:
        DivergenceError: If a product is not finite.
    """
    forms, squares = [], []
    for _ in progress(range(probes)):
        z = rademacher(point, generator)
        product = loss.product(point, z, mode)
        forms.append(dot(z, product))
        squares.append(dot(product, product))
    return Sharpness(
        loss=Estimate.of(loss.examples(point), what="loss"),
        trace=Estimate.of(torch.stack(forms), what="zᵀHz"),
        frobenius_squared=Estimate.of(torch.stack(squares), what="‖Hz‖²"),
        gradient_norm=norm(loss.gradient(point)),
        size=sum(tensor.numel() for tensor in point.values()),
    )


def predicted(measured: Sharpness, length: float) -> Estimate:
    """(σ²/2d)·Tr(H) [ResAlign, Eq. 21] for a displacement of length σ."""
    factor = length**2 / (2 * measured.size)
    trace = measured.trace
    return Estimate(factor * trace.mean, factor * trace.standard_error, trace.n)


def change(loss: FrozenLoss, point: Params, displacement: Params) -> Estimate:
    """L(θ + δ) − L(θ), the standard error over the examples' own differences."""
    difference = loss.examples(add(point, displacement)) - loss.examples(point)
    return Estimate.of(difference, what="L(θ + δ) − L(θ)")


def isotropic_change(
    loss: FrozenLoss, point: Params, length: float, pairs: int, generator: torch.Generator
) -> Estimate:
    """E L(θ + ξ) − L(θ) over ξ uniform on the sphere of radius σ, the standard error over the drawn pairs.

    Each direction is taken forwards and backwards, which leaves the mean unchanged and removes from the error the terms
    that are odd in ξ: the gradient's, which would exceed the curvature's.

    Args:
        loss: L.
        point: θ.
        length: σ.
        pairs: Number of directions.
        generator: Random stream of the directions.
    """
    before = loss.examples(point).mean()
    changes = []
    for _ in range(pairs):
        direction = random_direction(point, length, generator)
        ends = [loss.examples(add(point, direction, sign)).mean() for sign in (1.0, -1.0)]
        changes.append((ends[0] + ends[1]) / 2 - before)
    return Estimate.of(torch.stack(changes), what="E L(θ + ξ) − L(θ)")


def taylor_terms(loss: FrozenLoss, point: Params, displacement: Params, mode: Mode = "exact") -> tuple[float, float]:
    """(∇Lᵀδ, ½δᵀHδ): the first two terms of L(θ + δ) − L(θ) [ResAlign, Eq. 17]."""
    linear = dot(loss.gradient(point), displacement)
    quadratic = dot(displacement, loss.product(point, displacement, mode)) / 2
    return float(linear), float(quadratic)


def loss_slice(
    loss: FrozenLoss, point: Params, displacement: Params, positions: Sequence[float]
) -> list[tuple[Estimate, Estimate]]:
    """L(θ + sδ) at each s, and its difference from L(θ); standard errors over examples.

    Args:
        loss: L.
        point: θ.
        displacement: δ.
        positions: s; 0 is θ, 1 is θ + δ.
    """
    before = loss.examples(point)
    found = []
    for position in positions:
        values = loss.examples(add(point, displacement, position))
        found.append((Estimate.of(values, what="L(θ + sδ)"), Estimate.of(values - before, what="L(θ + sδ) − L(θ)")))
    return found


def rademacher(like: Params, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Independent signs ±1 of a point's shapes."""
    return {n: (2 * torch.randint(2, t.shape, generator=generator) - 1).to(t) for n, t in like.items()}


def random_direction(like: Params, length: float, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """A vector uniform on the sphere of a radius, in a point's shapes."""
    drawn = {n: torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t) for n, t in like.items()}
    return scaled(drawn, length / norm(drawn))


def _mean(parts: Iterable[Params]) -> dict[str, torch.Tensor]:
    """The mean of named vectors, added up one at a time."""
    total: dict[str, torch.Tensor] = {}
    count = 0
    for count, part in enumerate(parts, start=1):  # noqa: B007
        total = add(total, part) if total else dict(part)
    return scaled(total, 1 / count)
