"""Stationary iterations: sums of powers of I + γH applied to the right-hand side."""

from __future__ import annotations

from resalign.bilevel.ritz import RitzPairs, of_hessian
from resalign.bilevel.solution import Solution, System, state_of
from resalign.tensors.named import Named, add, norm, scaled, zeros_like


def sum_of_powers(system: System, first: Named, c0: float, c1: float, *, steps: int, rtol: float) -> Solution:
    """Returns x = Σ_{k < steps} p_k with p₀ = ``first`` and p_{k+1} = c₀p_k + c₁(I + γH)p_k.

    Every fixed-point iteration x ← Mx + b from x⁰ = 0 is such a sum. The last product is for the residual alone, which
    is carried along and not recomputed.

    Args:
        system: What is to be solved; its residual is reported whatever the iteration solves.
        first: p₀, the first iterate; it costs no product.
        c0: Weight of p_k in the recurrence.
        c1: Weight of its product.
        steps: Largest number of terms.
        rtol: Relative residual at which to stop.
    """
    x, p, residual = zeros_like(system.rhs), dict(first), dict(system.rhs)
    size, ritz, products_before = norm(system.rhs), RitzPairs(), system.products
    relative = 0.0 if size == 0 else 1.0
    for _ in range(steps):
        if not relative > rtol:  # NaN ends it too
            break
        x = add(x, p)
        product = system.matvec(p)
        residual = add(residual, product, -1.0)
        ritz.observe(p, product, c0, c1)
        relative = norm(residual) / size
        p = add(scaled(p, c0), product, c1)
    products = system.products - products_before
    return Solution(x, relative, products, state_of(relative, rtol), of_hessian(ritz.extremes))
