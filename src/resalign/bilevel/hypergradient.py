"""The hypergradient of a fine-tuned model's loss with respect to the weights before fine-tuning [ResAlign, Alg. 1]."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from resalign.bilevel.envelope import Envelope, envelope_of
from resalign.bilevel.hvp import Hessian, Mode, hessian_vector_product
from resalign.bilevel.solution import Example, Solution, System
from resalign.lazy import torch
from resalign.tensors.losses import Loss, Rows, gradient_at, loss_at, loss_at_both
from resalign.tensors.params import Params, add, gradient, leaves, norm

Gamma = float | Callable[[Envelope], float]
Solve = Callable[[System], Solution]


class ExampleLoss(NamedTuple):
    """ℓ_i as a function of the weights; see :class:`resalign.bilevel.solution.Example`."""

    loss: Loss
    share: float
    elements: int


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuning of weights θ through variables ψ, before and after it: θ* = θ + T(ψ*).

    Attributes:
        theta: The weights θ before fine-tuning.
        start: The variables ψ₀ before it; for :func:`exact_hypergradient` no name may be one of ``theta``'s.
        adapted: The variables ψ* after it, same names.
        weights: (θ, ψ) → θ + T(ψ).
        loss: L_FT as a function of the weights, on one frozen batch, prior term included.
        losses: L_FT on each step's own batch.
        gamma_hint: γ of the proximal step that the fine-tuning amounts to, where its settings determine it.
        examples: L_FT by example; empty for a loss that is known as a whole only.
    """

    theta: Params
    start: Params
    adapted: Params
    weights: Callable[[Params, Params], Params]
    loss: Loss
    losses: tuple[float, ...] = ()
    gamma_hint: float | None = None
    examples: tuple[ExampleLoss, ...] = ()


@dataclass(frozen=True)
class Hypergradient:
    """A hypergradient in weight space, with a record of its accuracy.

    Attributes:
        value: dL_harm(θ*)/dθ, by weight name.
        first_order_norm: ‖∇L_harm(θ*)‖, the estimate without curvature.
        gamma: γ that was used.
        envelope: How far θ* is from the proximal solution that the theory assumes.
        solution: The linear solve; its ``x`` is in the coordinates of the adaptation.
        products: Hessian-vector products used, the mixed block's included.
    """

    value: dict[str, torch.Tensor]
    first_order_norm: float
    gamma: float
    envelope: Envelope
    solution: Solution
    products: int


def merged_hypergradient(
    outer_loss: Loss, tuned: FineTuned, *, gamma: Gamma, solve: Solve, mode: Mode = "exact"
) -> Hypergradient:
    """Solves (I + γH) x = g at the merged weights θ* [ResAlign, Eq. 6 times γ].

    Exact for full-parameter adaptation; for any other it is the paper's use of Eq. 6 (see :func:`exact_hypergradient`).

    Args:
        outer_loss: L_harm as a function of the weights.
        tuned: The fine-tuning; only its weights before and after enter, not its variables.
        gamma: γ of the Moreau envelope, or a rule such as :func:`~resalign.bilevel.envelope.matched`.
        solve: Solver of the linear system, its configuration bound.
        mode: How Hessian products are taken.

    Raises:
        DivergenceError: If ∇L_harm(θ*) is not finite, no γ matches, or the solver gives up.
    """
    merged = tuned.weights(tuned.theta, tuned.adapted)
    rows = Rows.of(weights=merged)
    point = rows.row("weights", merged)
    displacement = add(point, rows.row("weights", tuned.theta), -1.0)
    del merged  # its row is in use
    outer, inner = loss_at(outer_loss, rows), loss_at(tuned.loss, rows)
    examples = _examples_at([e._replace(loss=loss_at(e.loss, rows)) for e in tuned.examples], point, ["weights"])
    g, hessian = gradient_at(outer, point), partial(Hessian, inner, point, ["weights"], mode=mode)
    solution, used, envelope = _solved(hessian, g, displacement, gamma, solve, examples, rows.shapes("weights"))
    solution = replace(solution, x=rows.named("weights", solution.x))
    return Hypergradient(solution.x, norm(g), used, envelope, solution, solution.products)


def exact_hypergradient(
    outer_loss: Loss, tuned: FineTuned, *, gamma: Gamma, solve: Solve, mode: Mode = "exact"
) -> Hypergradient:
    """The hypergradient through an adaptation that has variables of its own: θ* = θ + T(ψ*).

    g_θ − γ (∂²_θψ L_FT) y with (I + γ ∂²_ψψ L_FT) y = g_ψ: the implicit function theorem applied to
    ψ* = argmin L_FT(θ + T(ψ)) + ‖ψ − ψ₀‖²/2γ. For T the identity it is Eq. 6.

    Args:
        outer_loss: L_harm as a function of the weights.
        tuned: The fine-tuning.
        gamma: γ of the Moreau envelope, in the coordinates ψ, or a rule.
        solve: Solver of the linear system in ψ.
        mode: How Hessian products are taken.

    Raises:
        DivergenceError: As :func:`merged_hypergradient`.
    """
    theta, psi = tuned.theta, tuned.adapted
    rows = Rows.of(theta=theta, psi=psi)
    point = rows.row("theta", theta) | rows.row("psi", psi)

    def split(loss: Loss) -> Loss:
        return loss_at(loss_at_both(loss, tuned.weights, theta), rows)

    inner, g = split(tuned.loss), gradient_at(split(outer_loss), point)
    g_theta, g_psi = {"theta": g["theta"]}, {"psi": g["psi"]}
    examples = _examples_at([e._replace(loss=split(e.loss)) for e in tuned.examples], point, ["psi"])
    hessian = partial(Hessian, inner, point, ["psi"], mode=mode)
    displacement = add({"psi": point["psi"]}, rows.row("psi", tuned.start), -1.0)
    solution, used, envelope = _solved(hessian, g_psi, displacement, gamma, solve, examples, rows.shapes("psi"))
    value, products = g_theta, solution.products
    if solution.state != "first_order":  # a first-order solver neglects every second derivative, the mixed block too
        mixed = hessian_vector_product(inner, point, solution.x, mode=mode, wrt=g_theta)
        value, products = add(g_theta, mixed, -used), products + 1
    solution = replace(solution, x=rows.named("psi", solution.x))
    return Hypergradient(rows.named("theta", value), norm(g_theta), used, envelope, solution, products)


def _solved(
    hessian_at: Callable[[], Hessian],
    g: Params,
    displacement: Params,
    gamma: Gamma,
    solve: Solve,
    examples: Callable[[], list[Example]] | None,
    parts: Mapping[str, torch.Size],
) -> tuple[Solution, float, Envelope]:
    """The solution, γ, and the envelope, whose gradient is the Hessian's own where γ does not wait for it.

    The Hessian is made and given up here, with its graph: the mixed block has another one.
    """
    hessian = hessian_at()
    if callable(gamma):
        envelope = envelope_of(hessian.gradient(), displacement)
        used = gamma(envelope)
        return solve(System(hessian.product, g, used, examples, parts)), used, envelope
    solution = solve(System(hessian.product, g, gamma, examples, parts))
    return solution, gamma, envelope_of(hessian.gradient(), displacement)


def _examples_at(
    examples: Sequence[ExampleLoss], point: Params, names: Collection[str]
) -> Callable[[], list[Example]] | None:
    """Measures every example, with its gradient by the given names."""

    def measured(example: ExampleLoss) -> Example:
        own = leaves({name: point[name] for name in names})
        loss = example.loss({**point, **own})
        slope = gradient(loss, own)
        return Example(loss.item(), slope, example.share, example.elements)

    return (lambda: [measured(example) for example in examples]) if examples else None
