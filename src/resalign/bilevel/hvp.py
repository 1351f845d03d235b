"""Products of a loss's Hessian with a vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from resalign.lazy import torch
from resalign.tensors.params import Params, add, detached, gradient, norm

Loss = Callable[[Params], "torch.Tensor"]
Mode = Literal["exact", "finite_difference"]


def hessian_vector_product(
    loss: Loss, point: Params, vector: Params, *, mode: Mode = "exact", wrt: Params | None = None
) -> dict[str, torch.Tensor]:
    """∇²L(point) · vector, or a mixed block of it.

    Args:
        loss: A scalar function of named tensors; the same at every call (frozen batch, noise and timesteps).
        point: Where the Hessian is taken.
        vector: The direction, over the names it holds; names of ``point`` that it lacks count as zero.
        mode: ``exact`` is a double backward (Pearlmutter 1994) and needs attention that can be differentiated twice;
            ``finite_difference`` is the central difference of two gradients and costs first-order memory.
        wrt: Names of the result, those of ``vector`` if None: with other names it is the block ∂²L/∂wrt∂vector.

    Returns:
        The product, by name.
    """
    rows = list(vector if wrt is None else wrt)
    if mode == "exact":
        from torch.nn.attention import SDPBackend, sdpa_kernel

        leaves = detached(point, requires_grad=True)
        with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no double backward
            first = torch.autograd.grad(loss(leaves), [leaves[n] for n in vector], create_graph=True, allow_unused=True)
            curved = [(n, g) for n, g in zip(vector, first, strict=True) if g is not None and g.requires_grad]
            if not curved:  # the loss is affine in these tensors
                return {name: torch.zeros_like(point[name]) for name in rows}
            return gradient(torch.stack([(g * vector[n]).sum() for n, g in curved]).sum(), {n: leaves[n] for n in rows})
    size = norm(vector)
    if size == 0:
        return {name: torch.zeros_like(point[name]) for name in rows}
    step = difference_step(point, vector)
    ends = []
    for sign in (1.0, -1.0):
        shifted = dict(point) | add({n: point[n] for n in vector}, vector, sign * step)
        leaves = detached({n: shifted[n] for n in rows}, requires_grad=True)
        ends.append(gradient(loss(shifted | leaves), leaves))
    return {name: (ends[0][name] - ends[1][name]) / (2 * step) for name in rows}


def difference_step(point: Params, vector: Params) -> float:
    """The step of the central difference: ε^(1/3)(1 + rms(point))/‖vector‖, ε the dtype's machine precision.

    Source: Nocedal and Wright 2006, Numerical Optimization, Eq. 8.4 and 8.7, for directional differences. Deviation:
    the root mean square over the elements in place of the norm, which grows with the network's size and not with the
    length over which its loss bends; the displacement is about DARTS' 0.01 (Liu 2019, arXiv 1806.09055, Eq. 8).
    """
    eps = max(torch.finfo(tensor.dtype).eps for tensor in vector.values())
    count = sum(tensor.numel() for tensor in vector.values())
    rms = norm({n: point[n] for n in vector}) / count**0.5
    return float(eps ** (1 / 3) * (1 + rms) / norm(vector))
