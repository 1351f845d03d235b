"""Numbers that rounding may part, compared relative to the scale of their kind and not to each value's own size.

CPUs add in different orders, and so do batches of different sizes. What parts their results is the rounding of the
LARGEST terms: an element near zero may be off by many times its own size.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch


def assert_near(found: Any, expected: Any, relative: float, *, scale: Any = None) -> None:
    """Every element differs by at most ``relative`` times the largest element of ``scale``.

    Args:
        found: A number, an array, a tensor, or several by name.
        expected: The same, of the same shapes.
        relative: Of the scale.
        scale: ``expected`` unless given: where that is a small difference of large terms, the terms.
    """
    found, expected, scale = (_values(values) for values in (found, expected, expected if scale is None else scale))
    np.testing.assert_allclose(found, expected, rtol=0, atol=relative * np.abs(scale).max(), strict=True)


def differing(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the tensors of ``expected`` whose bits ``found`` does not have: for two runs of one computation."""
    return [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)]


def _values(values: Any) -> npt.NDArray[np.float64]:
    if isinstance(values, Mapping):
        return np.concatenate([_values(values[name]).ravel() for name in sorted(values)])
    return np.asarray(values.detach().numpy() if isinstance(values, torch.Tensor) else values, dtype=np.float64)
