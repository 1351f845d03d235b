"""What a linear solver returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from resalign.lazy import torch

Matvec = Callable[[Mapping[str, "torch.Tensor"]], dict[str, "torch.Tensor"]]


@dataclass(frozen=True)
class Solution:
    """An approximate solution of A x = b.

    Attributes:
        x: The solution.
        relative_residual: ‖b − A x‖ / ‖b‖ of this x (0 for b = 0); NaN where the solver did not compute it.
        products: Products with A that the solve cost, the one for the residual included.
    """

    x: dict[str, torch.Tensor]
    relative_residual: float
    products: int
