"""Small problems in float64 whose answers are known in closed form; named tensors as one vector, and back."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from resalign.tensors.params import Params

Vector = npt.NDArray[np.float64]
Loss = Callable[[Params], torch.Tensor]

# Two tensors of different shapes, so that a test fails where names or shapes are mixed up.
SHAPES = {"weight": (2, 2), "bias": (3,)}
SIZE = 7


def named(vector: Vector) -> dict[str, torch.Tensor]:
    """A vector (7,) as named tensors."""
    parts = np.split(np.asarray(vector, dtype=np.float64), [4])
    return {n: torch.from_numpy(p.copy()).reshape(s) for (n, s), p in zip(SHAPES.items(), parts, strict=True)}


def stacked(tensors: Params) -> torch.Tensor:
    """Named tensors as one vector, differentiable."""
    return torch.cat([tensors[name].reshape(-1) for name in tensors])


def vector(tensors: Params) -> Vector:
    """Named tensors as one NumPy vector."""
    values: Vector = stacked(tensors).detach().numpy()
    return values


def symmetric(eigenvalues: Vector, seed: int = 0) -> Vector:
    """A symmetric matrix with given eigenvalues and random eigenvectors."""
    basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues),) * 2))
    matrix: Vector = (basis * eigenvalues) @ basis.T
    return matrix


def quadratic(hessian: Vector, centre: Vector) -> Loss:
    """½ (θ − c)ᵀ H (θ − c)."""
    matrix, middle = torch.from_numpy(hessian), torch.from_numpy(centre)

    def loss(weights: Params) -> torch.Tensor:
        shift = stacked(weights) - middle
        return 0.5 * shift @ matrix @ shift

    return loss


@dataclass(frozen=True)
class QuadraticBilevel:
    """Inner and outer quadratic; everything about them in closed form.

    Attributes:
        inner, outer: Hessians of L_FT and L_harm, symmetric (7, 7); both may be indefinite.
        inner_centre, outer_centre: Their stationary points.
        start: θ.
        gamma: γ of the Moreau envelope.
    """

    inner: Vector
    outer: Vector
    inner_centre: Vector
    outer_centre: Vector
    start: Vector
    gamma: float

    @classmethod
    def random(cls, gamma: float, seed: int = 1) -> "QuadraticBilevel":
        rng = np.random.default_rng(seed)
        inner = symmetric(np.linspace(-0.5, 1.2, SIZE) * 0.7 / gamma, seed)  # |γλ| < 1, of both signs
        outer = symmetric(rng.normal(size=SIZE), seed + 1)
        return cls(inner, outer, *rng.normal(size=(3, SIZE)), gamma)

    def adapted(self, start: Vector) -> Vector:
        """θ* = argmin L_FT(θ') + ‖θ' − θ‖²/2γ [ResAlign, Eq. 5]."""
        system = np.eye(SIZE) + self.gamma * self.inner
        solution: Vector = np.linalg.solve(system, start + self.gamma * self.inner @ self.inner_centre)
        return solution

    def value(self, start: Vector) -> float:
        """L_harm(θ*(θ))."""
        shift = self.adapted(start) - self.outer_centre
        return float(0.5 * shift @ self.outer @ shift)

    def outer_gradient(self) -> Vector:
        """g = ∇L_harm(θ*)."""
        gradient: Vector = self.outer @ (self.adapted(self.start) - self.outer_centre)
        return gradient

    def hypergradient(self) -> Vector:
        """(I + γH)⁻¹ g [ResAlign, Eq. 6]."""
        solution: Vector = np.linalg.solve(np.eye(SIZE) + self.gamma * self.inner, self.outer_gradient())
        return solution


def central_differences(value: Callable[[Vector], float], point: Vector, step: float = 1e-5) -> Vector:
    """The gradient of a function of a vector."""
    ends = [(value(point + step * e), value(point - step * e)) for e in np.eye(len(point))]
    return np.array([(above - below) / (2 * step) for above, below in ends])
