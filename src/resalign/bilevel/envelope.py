"""The Moreau envelope that the hypergradient assumes [ResAlign, Eq. 5], compared with a simulated fine-tuning."""

from __future__ import annotations

import math
from dataclasses import dataclass

from resalign.tensors.params import Params, dot, norm
from resalign.tensors.steps import DivergenceError


@dataclass(frozen=True)
class Envelope:
    """Three scalars of a fine-tuning from ψ₀ to ψ*, with s = ∇L_FT(ψ*) and Δ = ψ* − ψ₀.

    Attributes:
        gradient_norm: ‖s‖.
        displacement_norm: ‖Δ‖.
        gradient_along_displacement: ⟨s, Δ⟩.
    """

    gradient_norm: float
    displacement_norm: float
    gradient_along_displacement: float

    @property
    def matched_gamma(self) -> float:
        """γ̂ = −‖Δ‖²/⟨s, Δ⟩, the γ at which the component of s + Δ/γ along Δ vanishes.

        It is not positive where the fine-tuning overshot along Δ: no envelope ends there. It is NaN where s ⟂ Δ.
        """
        along = self.gradient_along_displacement
        return -(self.displacement_norm**2) / along if along else math.nan

    def stationarity(self, gamma: float) -> float:
        """‖s + Δ/γ‖: 0 where ψ* is the proximal solution.

        The three scalars lose half the digits to cancellation: 1e-8 of ‖s‖ counts as zero.
        """
        squares = self.gradient_norm**2 + (self.displacement_norm / gamma) ** 2
        return math.sqrt(max(squares + 2 * self.gradient_along_displacement / gamma, 0.0))


def matched(envelope: Envelope, unmatched: float | None = None) -> float:
    """γ̂ of a fine-tuning, or ``unmatched`` where γ̂ is not positive.

    Raises:
        DivergenceError: If γ̂ is not positive and ``unmatched`` is None.
    """
    if envelope.matched_gamma > 0:  # not NaN
        return envelope.matched_gamma
    if unmatched is None:
        raise DivergenceError(
            f"no γ matches a simulated fine-tuning that overshot: −‖Δ‖²/⟨∇L_FT(θ*), Δ⟩ = {envelope.matched_gamma:.3g};"
            " simulate fewer or smaller steps, or set gamma_unmatched"
        )
    return unmatched


def envelope_of(slope: Params, displacement: Params) -> Envelope:
    """Measures the scalars.

    Args:
        slope: ∇L_FT(ψ*), by the adaptation's variables.
        displacement: ψ* − ψ₀.
    """
    return Envelope(norm(slope), norm(displacement), float(dot(slope, displacement)))
