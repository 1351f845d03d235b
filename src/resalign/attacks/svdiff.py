"""SVDiff: fine-tuning of the singular values of every weight matrix, with fixed singular vectors.

Source: Han 2023, arXiv 2303.11305, Section 3: W_δ = U diag(ReLU(σ + δ)) Vᵀ, a convolution's kernel as a matrix.

Deviation: 1-D weights (biases and norms) and the text encoder stay as they are.
Deviation: no Cut-Mix-Unmix, the paper's augmentation for several subjects.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from resalign.attacks._fine_tuning import FineTuningConfig, Tuning, fine_tune
from resalign.contracts import AttackData, Run, Save
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.lazy import torch
from resalign.tensors.params import Params


class Config(FineTuningConfig):
    """The learning rate is this project's choice: a few shifts need longer steps than all weights do."""

    lr: float = Field(1e-3, gt=0)


@dataclass(frozen=True)
class Spectrum:
    """A weight's thin singular value decomposition W = U diag(σ) Vᵀ.

    Attributes:
        weight: W, (out, …); a convolution's kernel counts as a matrix (out, in · height · width).
        left: U, (out, r), where r is the smaller of the matrix' sizes.
        values: σ, (r,).
        right: Vᵀ, (r, in · height · width).
    """

    weight: torch.Tensor
    left: torch.Tensor
    values: torch.Tensor
    right: torch.Tensor

    @classmethod
    def of(cls, weight: torch.Tensor) -> Spectrum:
        """Decomposes a weight of two or more dimensions."""
        return cls(weight, *torch.linalg.svd(weight.flatten(1), full_matrices=False))

    def shifted(self, shift: torch.Tensor) -> torch.Tensor:
        """U diag(ReLU(σ + δ)) Vᵀ in the shape of W, δ (r,).

        It is computed as a change of W, so that no shift changes no bit.
        """
        change = torch.relu(self.values + shift) - self.values
        return self.weight + ((self.left * change) @ self.right).reshape(self.weight.shape)


def attack(loaded: LoadedPipeline, data: AttackData, config: Config, run: Run, save: Save) -> None:
    """Trains shifts of singular values, beginning at 0; see :func:`resalign.attacks._fine_tuning.fine_tune`."""
    matrices = {name: weight for name, weight in named_weights(loaded.denoiser).items() if weight.dim() > 1}
    spectra = {name: Spectrum.of(weight) for name, weight in matrices.items()}
    shifts = {name: torch.zeros_like(spectrum.values).requires_grad_() for name, spectrum in spectra.items()}

    def weights(shifts: Params) -> Params:
        return {name: spectrum.shifted(shifts[name]) for name, spectrum in spectra.items()}

    fine_tune(loaded, data, config, run, save, Tuning("svdiff", shifts, weights))
