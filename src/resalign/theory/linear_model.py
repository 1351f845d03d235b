"""The linear diffusion model of concept resurgence: its gradients and updates, simulated, in closed form and bounded.

Source: "Unstable Unlearning: The Hidden Risk of Concept Resurgence in Diffusion Models", Section 5, Proposition 5.1.
The residual is Wx_t − ε with x_t = √α_t x₀ + √(1 − α_t) ε, the loss L_t(W) = E‖Wx_t − ε‖². With
Σ_t = E x_t x_tᵀ = α_t Σ + (1 − α_t) I and E ε x_tᵀ = √(1 − α_t) I:

    ∇L_t(W) = 2 (WΣ_t − √(1 − α_t) I),    its Hessian V ↦ 2VΣ_t,    its minimum W* = √(1 − α_t) Σ_t⁻¹.

The proposition says neither on which side of the gradient the fine-tuning's subspace S stands nor what an update is, so
that every reading is measured; U_C and U_S are orthonormal bases, P = UUᵀ. Where W can move in a subspace U alone
(W₀ + MUᵀ), one Newton step is M = −½ ∇L_t(W₀) U (UᵀΣ_tU)⁻¹.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from resalign.config.theory import LinearModelConfig
from resalign.lazy import torch

GRADIENT, UPDATE = "gradient", "update"
# How a quantity is read.
FREE, ROWS_IN_S, COLUMNS_IN_S, ROWS_IN_C = "free", "rows in S", "columns in S", "rows in C"
# What an update is: one Newton step, by the Hessian 2Σ_t that the loss has or by the Σ_t of the printed bound; descent.
NO_STEP, NEWTON, PRINTED_HESSIAN, DESCENT = "", "Newton, Hessian 2Σ_t", "Newton, Hessian Σ_t", "gradient descent"
ROUNDING = 1e-12  # below it a norm, or an eigenvalue of a product of projections, is 0


@dataclass(frozen=True)
class Row:
    """One quantity at one point of the grid.

    Attributes:
        concept_dimension, supervision_dimension: dim C, dim S.
        overlap: cos² of every principal angle between the two.
        curvature: Variance of the data in C; 1 elsewhere.
        position: t.
        alpha: α_t.
        quantity: ``gradient`` or ``update``.
        reading: Where S stands; ``free`` for nowhere.
        step: What an update is; empty for a gradient.
        simulated: ‖P_C ·‖_F from examples: automatic differentiation, least squares, descent.
        closed_form: The same from moments.
        difference: Frobenius norm between the two matrices, over the closed form's, or absolute where that is 0.
        leakage_whole: λ_min(P_S P_C P_S) over the whole space, as printed.
        leakage: λ_min(U_Sᵀ P_C U_S), over S.
        bound_whole, bound: The published bound of the quantity with either.
        ratio: simulated / bound; NaN where the bound is 0.
        bound_over_s: Of an update: the bound with √γ·√(1 − α_t)/(α_t λ_max(U_SᵀΣU_S) + 1 − α_t), the constant of a
            Newton step with the curvature of the subspace in which it moves; NaN for a gradient.
    """

    concept_dimension: int
    supervision_dimension: int
    overlap: float
    curvature: float
    position: int
    alpha: float
    quantity: str
    reading: str
    step: str
    simulated: float
    closed_form: float
    difference: float
    leakage_whole: float
    leakage: float
    bound_whole: float
    bound: float
    ratio: float
    bound_over_s: float


def signal_shares(config: LinearModelConfig) -> torch.Tensor:
    """ᾱ_t of the scaled linear schedule (T,): √β is linear in t [Rombach 2022, arXiv 2112.10752, released config]."""
    ends = (config.beta_start**0.5, config.beta_end**0.5)
    betas = torch.linspace(*ends, config.train_timesteps, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)


@dataclass(frozen=True)
class Geometry:
    """Subspaces and data at one point of the grid.

    Attributes:
        concept, supervision: U_C (d, k) and U_S (d, s), orthonormal.
        covariance: Σ (d, d).
    """

    concept: torch.Tensor
    supervision: torch.Tensor
    covariance: torch.Tensor

    @property
    def forgets(self) -> torch.Tensor:
        """P_C."""
        return self.concept @ self.concept.T

    @property
    def supervises(self) -> torch.Tensor:
        """P_S."""
        return self.supervision @ self.supervision.T

    @property
    def leakage_whole(self) -> float:
        """λ_min(P_S P_C P_S) over the whole space: 0 unless both subspaces are all of it."""
        return smallest_square(self.forgets @ self.supervises)

    @property
    def leakage(self) -> float:
        """λ_min(U_Sᵀ P_C U_S), the smallest cos² of a direction of S to C; 0 wherever dim S > dim C."""
        return smallest_square(self.forgets @ self.supervision)


def geometry(
    config: LinearModelConfig, dimensions: tuple[int, ...], overlap: float, curvature: float, basis: torch.Tensor
) -> Geometry:
    """C of the basis' first k vectors, S at the same angle to each of them, the data's variance ``curvature`` in C.

    Args:
        config: d.
        dimensions: (k, s); directions of S beyond k are orthogonal to C.
        overlap: cos² of the angle.
        curvature: λ of Σ in C.
        basis: Orthonormal (d, d).
    """
    k, s = dimensions
    identity = torch.eye(config.dimension, dtype=torch.float64)
    shared = min(k, s)
    supervision = identity[:, k : k + s].clone()
    supervision[:, :shared] *= math.sqrt(1 - overlap)
    supervision[:, :shared] += math.sqrt(overlap) * identity[:, :shared]
    variances = torch.ones(config.dimension, dtype=torch.float64)
    variances[:k] = curvature
    return Geometry(basis[:, :k], basis @ supervision, basis @ variances.diag() @ basis.T)


def examples(
    covariance: torch.Tensor, alpha: float, count: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """x_t and ε (N, d), moved so that their second moments are exactly the population's.

    A sample's own moments differ from the population's by 1/√N, and no simulation would agree with a closed form; the
    joint sample of (x₀, ε) is whitened by its own second moment before Σ is given to x₀.
    """
    d = len(covariance)
    drawn = torch.randn((count, 2 * d), generator=generator, dtype=torch.float64)
    moment = drawn.T @ drawn / count
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(moment), drawn.T, upper=False).T
    clean, noise = white[:, :d] @ torch.linalg.cholesky(covariance).T, white[:, d:]
    return math.sqrt(alpha) * clean + math.sqrt(1 - alpha) * noise, noise


def linear_loss(weight: torch.Tensor, noisy: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """L_t(W): the mean over examples of ‖Wx_t − ε‖²."""
    return (noisy @ weight.T - noise).square().sum(dim=1).mean()


@dataclass(frozen=True)
class Problem:
    """One point of the grid with its examples.

    Attributes:
        space: Subspaces and data.
        alpha: α_t.
        noisy, noise: x_t and ε (N, d).
    """

    space: Geometry
    alpha: float
    noisy: torch.Tensor
    noise: torch.Tensor

    @property
    def moment(self) -> torch.Tensor:
        """Σ_t = α_t Σ + (1 − α_t) I."""
        return self.alpha * self.space.covariance + (1 - self.alpha) * self._identity

    @property
    def unlearned(self) -> torch.Tensor:
        """W₀ = (I − P_C) W*: what was optimal for the data, with C projected out, so that P_C W₀ = 0."""
        return (self._identity - self.space.forgets) @ self.optimum

    @property
    def optimum(self) -> torch.Tensor:
        """W* = √(1 − α_t) Σ_t⁻¹."""
        return math.sqrt(1 - self.alpha) * torch.linalg.inv(self.moment)

    @property
    def _identity(self) -> torch.Tensor:
        return torch.eye(len(self.space.covariance), dtype=torch.float64)

    def gradient(self) -> torch.Tensor:
        """∇L_t(W₀) = 2 (W₀Σ_t − √(1 − α_t) I)."""
        return 2 * (self.unlearned @ self.moment - math.sqrt(1 - self.alpha) * self._identity)

    def newton(self, subspace: torch.Tensor) -> torch.Tensor:
        """One Newton step with rows in a subspace U: −½ ∇L_t(W₀) U (UᵀΣ_tU)⁻¹ Uᵀ."""
        curvature = subspace.T @ self.moment @ subspace
        return -self.gradient() @ subspace @ torch.linalg.inv(curvature) @ subspace.T / 2

    def descent(self, rate: float, steps: int) -> torch.Tensor:
        """W_T − W₀ after T steps at rate η: (W* − W₀)(I − (I − 2ηΣ_t)^T)."""
        kept = torch.linalg.matrix_power(self._identity - 2 * rate * self.moment, steps)
        return (self.optimum - self.unlearned) @ (self._identity - kept)

    def simulated_gradient(self, weight: torch.Tensor) -> torch.Tensor:
        """∇ of the examples' loss, by automatic differentiation."""
        leaf = weight.clone().requires_grad_()
        return torch.autograd.grad(linear_loss(leaf, self.noisy, self.noise), leaf)[0]

    def simulated_newton(self, subspace: torch.Tensor) -> torch.Tensor:
        """Where a quadratic's Newton step leads, its minimum, by least squares: ε − W₀x_t from Uᵀx_t."""
        residual = self.noise - self.noisy @ self.unlearned.T
        solution = torch.linalg.lstsq(self.noisy @ subspace, residual).solution
        return solution.T @ subspace.T

    def simulated_descent(self, rate: float, steps: int) -> torch.Tensor:
        """T steps of gradient descent on the examples."""
        weight = self.unlearned
        for _ in range(steps):
            weight = weight - rate * self.simulated_gradient(weight)
        return weight - self.unlearned


def smallest_square(matrix: torch.Tensor) -> float:
    """λ_min(AᵀA), A no wider than high, by singular values; what rounding leaves of 0 is 0."""
    value = float(torch.linalg.svdvals(matrix)[-1]) ** 2
    return 0.0 if value < ROUNDING else value


def largest(matrix: torch.Tensor) -> float:
    """The largest eigenvalue of a symmetric positive semi-definite matrix."""
    return float(torch.linalg.svdvals(matrix)[0])


def gradient_bound(alpha: float, leakage: float) -> float:
    """2 √(1 − α_t) √γ [Proposition 5.1, 1]."""
    return 2 * math.sqrt(1 - alpha) * math.sqrt(leakage)


def update_bound(alpha: float, leakage: float, largest_variance: float) -> float:
    """2 √(1 − α_t) √γ / (α_t λ_max^C + 1 − α_t) [Proposition 5.1, 2]."""
    return gradient_bound(alpha, leakage) / (alpha * largest_variance + 1 - alpha)
