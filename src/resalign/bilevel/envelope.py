"""How well a simulated fine-tuning fits the Moreau envelope that the hypergradient assumes [ResAlign, Eq. 5]."""

from __future__ import annotations

import math
from dataclasses import dataclass

from resalign.bilevel.hvp import Loss
from resalign.tensors.named import Named, detached, dot, gradient, norm
from resalign.tensors.steps import DivergenceError


@dataclass(frozen=True)
class Envelope:
    """Scalars at the adapted point ψ*, Δ = ψ* − ψ₀ its displacement and s = ∇L_FT(ψ*) the slope that is left.

    Attributes:
        slope_norm: ‖s‖.
        displacement_norm: ‖Δ‖.
        slope_along_displacement: ⟨s, Δ⟩.
    """

    slope_norm: float
    displacement_norm: float
    slope_along_displacement: float

    @property
    def matched_gamma(self) -> float:
        """γ̂ = −‖Δ‖²/⟨s, Δ⟩, at which Δ is as near to stationary as along itself it can be.

        Not positive where the fine-tuning overshot along Δ: then no envelope has its end. NaN where s ⟂ Δ.
        """
        along = self.slope_along_displacement
        return -(self.displacement_norm**2) / along if along else math.nan

    def stationarity(self, gamma: float) -> float:
        """‖s + Δ/γ‖: 0 where ψ* is the proximal solution.

        The three scalars lose half the digits to cancellation: 1e-8 of ‖s‖ counts as zero.
        """
        squares = self.slope_norm**2 + (self.displacement_norm / gamma) ** 2
        return math.sqrt(max(squares + 2 * self.slope_along_displacement / gamma, 0.0))


def matched(envelope: Envelope, unmatched: float | None = None) -> float:
    """γ̂ of a fine-tuning, or ``unmatched`` where it has none.

    Raises:
        DivergenceError: If it has none and nothing stands in for it.
    """
    if envelope.matched_gamma > 0:  # not NaN
        return envelope.matched_gamma
    if unmatched is None:
        raise DivergenceError(
            f"no γ matches a simulated fine-tuning that overshot: −‖Δ‖²/⟨∇L_FT(θ*), Δ⟩ = {envelope.matched_gamma:.3g};"
            " simulate fewer or smaller steps, or set gamma_unmatched"
        )
    return unmatched


def envelope_at(inner_loss: Loss, point: Named, displacement: Named) -> Envelope:
    """Takes the scalars, at the cost of one gradient.

    Args:
        inner_loss: L_FT as a function of the adaptation's variables, frozen batch.
        point: ψ*, the variables after adaptation.
        displacement: ψ* − ψ₀.
    """
    leaves = detached(point, requires_grad=True)
    slope = gradient(inner_loss(leaves), leaves)
    return Envelope(norm(slope), norm(displacement), float(dot(slope, displacement)))
