"""Derivatives through every step of a simulated fine-tuning: what the cheaper hypergradients are held against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from resalign.bilevel.adaptation import adapt
from resalign.bilevel.hvp import Hessian, Mode, hessian_vector_product
from resalign.lazy import torch
from resalign.tensors.losses import Loss, gradient_at
from resalign.tensors.params import Params, add, detached, dot, norm, scaled, zeros_like
from resalign.tensors.steps import DivergenceError

Descent = Literal["sgd", "adam"]
_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # Adam's in PyTorch


def unrolled_hypergradient(
    outer_loss: Loss,
    inner_loss: Loss | Sequence[Loss],
    start: Params,
    *,
    lr: float,
    steps: int,
    optimizer: Descent = "sgd",
    mode: Mode = "exact",
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """d/dθ L_harm(θ_T(θ)) by reverse-mode differentiation, θ_T being ``steps`` steps of gradient descent on L_FT.

    No graph is kept: going back, a step costs one Hessian product. What is kept are the weights before every step, T
    copies, and for Adam its two moments as well, 3T copies. On a quadratic L_FT and by gradient descent it is
    (I − ηH)ᵀ ∇L_harm(θ_T).

    Args:
        outer_loss: L_harm as a function of the weights.
        inner_loss: L_FT as a function of the weights, frozen batch: the same at every step, or one for each.
        start: The weights θ.
        lr: η.
        steps: T.
        optimizer: ``sgd``, or ``adam`` at PyTorch's defaults.
        mode: How Hessian products are taken.

    Returns:
        θ_T and the hypergradient, by weight name.

    Raises:
        DivergenceError: If the hypergradient is not finite.

    Source: Franceschi 2017, arXiv 1703.01785, Algorithm 1, for the initial point as hyperparameter.
    """
    losses = [inner_loss] * steps if callable(inner_loss) else inner_loss
    assert len(losses) == steps, f"{len(losses)} losses of {steps} steps"
    weights, moments = detached(start), (zeros_like(start), zeros_like(start))
    path: list[tuple[Params, tuple[Params, Params]]] = []  # weights before a step, moments after it
    for step, loss in enumerate(losses, start=1):
        slope = gradient_at(loss, weights)
        if optimizer == "adam":
            moments = _moments(moments, slope)
            slope = {name: _adam(m, v, step)[0] for name, m, v in _by_name(moments)}
        path.append((weights, moments))
        weights = add(weights, slope, -lr)
    value = gradient_at(outer_loss, weights)
    back = (zeros_like(start), zeros_like(start))  # dL_harm / d moments after the step at hand
    for step in range(steps, 0, -1):
        loss, (before, after) = losses[step - 1], path.pop()
        pulled: Params = scaled(value, -lr)  # dL_harm / d slope
        if optimizer == "adam":
            pulled, back = _through_adam(value, back, gradient_at(loss, before), after, step, lr)
        value = add(value, hessian_vector_product(loss, before, pulled, mode=mode))
    _check_finite(value, f"through {steps} steps of {optimizer} at {lr:g}")
    return weights, value


def _check_finite(value: Params, what: str) -> None:
    """A derivative through a fine-tuning that diverged is no reference."""
    if not all(bool(torch.isfinite(tensor).all()) for tensor in value.values()):
        raise DivergenceError(f"the derivative {what} is not finite: the fine-tuning diverged; lower its rate")


def _by_name(moments: tuple[Params, Params]) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    return ((name, m, moments[1][name]) for name, m in moments[0].items())


def _moments(before: tuple[Params, Params], slope: Params) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    first = {name: _BETAS[0] * m + (1 - _BETAS[0]) * slope[name] for name, m in before[0].items()}
    return first, {name: _BETAS[1] * v + (1 - _BETAS[1]) * slope[name].square() for name, v in before[1].items()}


def _adam(m: torch.Tensor, v: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Adam's direction m̂ / (√v̂ + ε), with its derivatives by m and by v; 0 where nothing has moved yet, v = 0."""
    bias, root = 1 - _BETAS[0] ** step, (v / (1 - _BETAS[1] ** step)).sqrt()
    by_m = 1 / (bias * (root + _EPSILON))
    by_root = -m * by_m / (root + _EPSILON)
    by_v = torch.where(root > 0, by_root / (2 * root * (1 - _BETAS[1] ** step)), 0.0)
    return m * by_m, by_m, by_v


def _through_adam(
    value: Params, back: tuple[Params, Params], slope: Params, moments: tuple[Params, Params], step: int, lr: float
) -> tuple[dict[str, torch.Tensor], tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
    """From dL_harm / d (weights, moments) after a step: that by the step's gradient, and by the moments before it."""
    pulled, firsts, seconds = {}, {}, {}
    for name, m, v in _by_name(moments):
        _, by_m, by_v = _adam(m, v, step)
        first, second = back[0][name] - lr * value[name] * by_m, back[1][name] - lr * value[name] * by_v
        pulled[name] = (1 - _BETAS[0]) * first + 2 * (1 - _BETAS[1]) * slope[name] * second
        firsts[name], seconds[name] = _BETAS[0] * first, _BETAS[1] * second
    return pulled, (firsts, seconds)


def directional_differences(
    outer_loss: Loss,
    inner_loss: Loss,
    start: Params,
    directions: Sequence[Params],
    *,
    lr: float,
    steps: int,
    length: float,
    optimizer: Descent = "sgd",
) -> list[float]:
    """The derivatives of L_harm(θ_T(θ)) along directions, each the central difference of two fine-tunings.

    No second derivative and no graph through a step: it shares none of :func:`unrolled_hypergradient`'s code.

    Args:
        outer_loss: L_harm as a function of the weights.
        inner_loss: L_FT as a function of the weights, frozen batch.
        start: The weights θ.
        directions: Of any length; the derivative is with respect to a multiple of each.
        lr: η.
        steps: T.
        length: ‖θ' − θ‖ of each displaced start θ'.
        optimizer: As above.

    Raises:
        DivergenceError: If a fine-tuning diverges.
    """

    def fine_tuned(shift: Params, size: float) -> float:
        moved = add(start, shift, size)
        adapted, _ = adapt(lambda _: inner_loss, moved, lr=lr, steps=steps, optimizer=optimizer)
        with torch.no_grad():
            return outer_loss(adapted).item()

    derivatives = []
    for direction in directions:
        step = length / norm(direction)
        derivatives.append((fine_tuned(direction, step) - fine_tuned(direction, -step)) / (2 * step))
    return derivatives


@dataclass(frozen=True)
class Sensitivities:
    """Derivatives of L_harm(θ_T), each by one number.

    Attributes:
        rate: By the learning rate of each window of steps, (windows,); their sum is that by one rate for all steps.
        term_weights: By the weight of each term of L_FT in each window, by the term's name.
        directions: By a multiple of each direction that is added to θ: ⟨dL_harm/dθ, v⟩.
    """

    rate: tuple[float, ...]
    term_weights: dict[str, tuple[float, ...]]
    directions: tuple[float, ...]


def forward_sensitivities(
    outer_loss: Loss,
    terms: Mapping[str, tuple[float, Loss]],
    start: Params,
    *,
    lr: float,
    steps: int,
    window: int | None = None,
    directions: Sequence[Params] = (),
) -> Sensitivities:
    """Differentiates L_harm through T steps of gradient descent on L_FT = Σ w L.

    Each number's tangent Z = dθ_t/dλ follows Z ← (I − ηH)Z + ∂step/∂λ: one copy of the weights, and a Hessian product a
    step from the first step that λ takes part in. All weights at once would take as many products as there are weights.

    Args:
        outer_loss: L_harm as a function of the weights.
        terms: The weight w and the loss L of each term, frozen batch.
        start: The weights θ.
        lr: η.
        steps: T.
        window: Steps that share one rate and one weight of each term; None for all of them.
        directions: v, of any length.

    Raises:
        DivergenceError: If a fine-tuned weight is not finite.

    Source: Franceschi 2017, arXiv 1703.01785, Section 3.2; windows that share: Micaelli 2021, arXiv 2007.07869.
    """
    window = window or max(steps, 1)
    weights, tangents = detached(start), [dict(direction) for direction in directions]
    shared: dict[tuple[str | None, int], Params] = {}  # by the term, None for the rate, and window

    def whole(point: Params) -> torch.Tensor:
        return torch.stack([weight * loss(point) for weight, loss in terms.values()]).sum()

    for step in range(steps):
        hessian = Hessian(whole, weights, weights)
        tangents = [add(tangent, hessian.product(tangent), -lr) for tangent in tangents]
        shared = {key: add(tangent, hessian.product(tangent), -lr) for key, tangent in shared.items()}
        del hessian  # and its graph
        slope: Params = {}
        for name, (weight, loss) in terms.items():
            own = gradient_at(loss, weights)
            slope = add(slope, own, weight) if slope else scaled(own, weight)
            _accumulate(shared, (name, step // window), own, -lr)
        _accumulate(shared, (None, step // window), slope, -1.0)
        weights = add(weights, slope, -lr)
    last = gradient_at(outer_loss, weights)
    _check_finite(last, f"through {steps} steps of sgd at {lr:g}")
    found = {key: float(dot(last, tangent)) for key, tangent in shared.items()}
    rate, *by_term = (tuple(found[key] for key in found if key[0] == name) for name in (None, *terms))
    along = tuple(float(dot(last, tangent)) for tangent in tangents)
    return Sensitivities(rate, dict(zip(terms, by_term, strict=True)), along)


def _accumulate(
    tangents: dict[tuple[str | None, int], Params], key: tuple[str | None, int], source: Params, scale: float
) -> None:
    """Adds what one step contributes."""
    tangents[key] = add(tangents[key], source, scale) if key in tangents else scaled(source, scale)
