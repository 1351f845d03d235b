"""The empirical Fisher matrix in place of H, from the gradients of single examples, and its inverse by Woodbury."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from resalign.bilevel.solution import UNSEEN, Residual, Solution, System
from resalign.config.strict import Strict
from resalign.lazy import torch
from resalign.tensors.params import shapes_of, stacked, unstacked
from resalign.tensors.steps import DivergenceError


class Config(Strict):
    """It has the examples of the batch over which H is taken: a gradient of each, and three arrays as large as it."""

    name: Literal["fisher"] = "fisher"
    rtol: float = Field(1e-2, ge=0, description="relative residual up to which the solve counts as converged")

    @property
    def products(self) -> int:
        """The one that measures the residual."""
        return 1

    @property
    def gradients(self) -> int:
        """Of every example."""
        return 1


def solve(system: System, config: Config) -> Solution:
    """Takes x = g − Gᵀ(I + GGᵀ)⁻¹Gg, the rows of G being √(γ w_i d / 2ℓ_i) ∇ℓ_i.

    For ℓ = ‖r‖²/d with a residual r that is white, d∇ℓ∇ℓᵀ/2ℓ has the mean of H without the network's own curvature
    (Gauss-Newton). Each example is scaled by its own loss, since a diffusion model's residual has another variance at
    every timestep; by one scale for all, noisy timesteps would make up the estimate. It is positive semi-definite and
    sees no negative curvature, so that the residual is measured, with a product of H.

    Raises:
        DivergenceError: If an example has a loss of 0: its gradient vanishes, and what it knows of H with it; or NaN.
        ValueError: If the system has no examples.

    Source: Kong 2026, arXiv 2602.10905, for a hypergradient by the Fisher matrix; scale and Woodbury's form are ours.
    """
    if system.examples is None:
        raise ValueError("solver fisher needs the losses of single examples, and this system's H has none")
    residual, before = Residual(system), system.products
    if not residual.relative:
        return Solution(dict(system.rhs), 0.0, 0, "converged")
    shapes, g = shapes_of(system.rhs), stacked(system.rhs)
    rows = []
    for example in system.examples():
        if not example.loss > 0:
            raise DivergenceError(
                f"an example of the batch over which H is taken has a loss of {example.loss:g}: its gradient says "
                "nothing of H; take solver: minres"
            )
        scale = system.gamma * example.share * example.elements / (2 * example.loss)
        rows.append(stacked(example.gradient) * scale**0.5)
    x = unstacked(_solved(torch.stack(rows), g), shapes)
    residual.matvec(x)
    return Solution.of(x, residual.relative, system.products - before, config.rtol, UNSEEN)


def _solved(rows: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """(I + GᵀG)⁻¹g, by a system of as many unknowns as G has rows or columns, whichever are fewer."""
    count, size = rows.shape
    gram = rows @ rows.T if count < size else rows.T @ rows
    system = torch.eye(len(gram), dtype=torch.float64, device=g.device) + gram.double()
    if count < size:
        return g - torch.linalg.solve(system, (rows @ g).double()).to(g) @ rows
    return torch.linalg.solve(system, g.double()).to(g)
