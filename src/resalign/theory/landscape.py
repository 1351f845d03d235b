"""One model's loss landscape as rows of tables: sharpness, displacements, slices."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from resalign.config.theory import TheoryConfig
from resalign.tensors.params import Params, norm
from resalign.tensors.seeds import generator
from resalign.theory import sharpness as measure
from resalign.theory.sharpness import Estimate, FrozenLoss, Sharpness

Kind = Literal["real", "isotropic"]
REAL: Kind = "real"
ISOTROPIC: Kind = "isotropic"
LOSS, CHANGE = "harmful_loss", "harmful_loss_change"


@dataclass(frozen=True)
class FineTuning:
    """Where a real fine-tuning has moved the weights.

    Attributes:
        model: Its row of the tables.
        attack: Label of the attack.
        seed: Training seed.
        steps: Steps taken so far.
        is_last: Whether the attack has kept no later state.
        displacement: δ = θ_FT − θ, over all weights.
        tensors_elsewhere: Tensors of other networks that it has changed; the losses here are without them.
    """

    model: str
    attack: str
    seed: int
    steps: int
    is_last: bool
    displacement: Params
    tensors_elsewhere: int


@dataclass(frozen=True)
class SharpnessRow:
    """One model and training seed; see :class:`~resalign.theory.sharpness.Sharpness`."""

    model: str
    seed: int
    parameters: int
    examples: int
    probes: int
    harmful_loss: float
    harmful_loss_standard_error: float
    gradient_norm: float
    trace: float
    trace_standard_error: float
    frobenius_squared: float
    frobenius_squared_standard_error: float


@dataclass(frozen=True)
class DisplacementRow:
    """L_harm(θ + δ) − L_harm(θ) as measured and as Proposition 1 has it.

    Attributes:
        model, attack, seed, steps: Of the fine-tuning whose length σ = ‖δ‖ it is.
        kind: ``real`` for δ itself; ``isotropic`` for the mean over random directions of its length.
        sigma: σ.
        predicted: (σ²/2d)·Tr(H), with the trace's error.
        measured: The error is over examples for ``real``, over pairs of directions for ``isotropic``; both are ``n``.
        linear, quadratic: ∇Lᵀδ and ½δᵀHδ of the real δ; NaN for ``isotropic``, where the first is 0 on average.
        tensors_elsewhere: See :class:`FineTuning`.
    """

    model: str
    attack: str
    seed: int
    steps: int
    kind: Kind
    sigma: float
    predicted: float
    predicted_standard_error: float
    measured: float
    measured_standard_error: float
    n: int
    linear: float
    quadratic: float
    tensors_elsewhere: int


@dataclass(frozen=True)
class SliceRow:
    """A loss at one point of a line through θ, its standard error over examples.

    Attributes:
        model, seed: The fine-tuned model's.
        direction: The attack's label, or ``random-K-ATTACK`` for a random direction of the same length.
        position: In lengths of the fine-tuning: 0 is θ, 1 is where it ended.
        quantity: ``harmful_loss``, or ``harmful_loss_change``: its difference from position 0.
    """

    model: str
    direction: str
    seed: int
    position: float
    quantity: str
    mean: float
    standard_error: float


def sharpness_row(model: str, seed: int, found: Sharpness) -> SharpnessRow:
    """A table's row."""
    return SharpnessRow(
        model,
        seed,
        found.size,
        found.loss.n,
        found.trace.n,
        *(found.loss.mean, found.loss.standard_error),
        found.gradient_norm,
        *(found.trace.mean, found.trace.standard_error),
        *(found.frobenius_squared.mean, found.frobenius_squared.standard_error),
    )


def displacement_rows(
    loss: FrozenLoss, point: Params, tuning: FineTuning, found: Sharpness, config: TheoryConfig
) -> Iterator[DisplacementRow]:
    """The real displacement, and after the last step random ones of its length, equal ones for every model."""
    sigma, mode = norm(tuning.displacement), config.hessian_products
    terms = measure.taylor_terms(loss, point, tuning.displacement, mode)
    expected = measure.predicted(found, sigma)

    def row(kind: Kind, measured: Estimate, terms: tuple[float, float]) -> DisplacementRow:
        return DisplacementRow(
            *(tuning.model, tuning.attack, tuning.seed, tuning.steps),
            kind,
            sigma,
            *(expected.mean, expected.standard_error),
            *(measured.mean, measured.standard_error),
            measured.n,
            *terms,
            tuning.tensors_elsewhere,
        )

    yield row(REAL, measure.change(loss, point, tuning.displacement), terms)
    if tuning.is_last:
        stream = generator("theory", "isotropic")
        isotropic = measure.isotropic_change(loss, point, sigma, config.displacement_pairs, stream)
        yield row(ISOTROPIC, isotropic, (math.nan, math.nan))


def slice_rows(loss: FrozenLoss, point: Params, tuning: FineTuning, config: TheoryConfig) -> Iterator[SliceRow]:
    """The loss along the fine-tuning and along random directions of its length, equal ones for every model."""
    sigma = norm(tuning.displacement)
    directions = {tuning.attack: tuning.displacement}
    for index in range(config.slice_directions):
        stream = generator("theory", "slice", index)
        directions[f"random-{index}-{tuning.attack}"] = measure.random_direction(point, sigma, stream)
    for label, direction in directions.items():
        found = measure.loss_slice(loss, point, direction, config.slice_positions)
        for position, (value, change) in zip(config.slice_positions, found, strict=True):
            for quantity, estimate in ((LOSS, value), (CHANGE, change)):
                yield SliceRow(
                    tuning.model, label, tuning.seed, position, quantity, estimate.mean, estimate.standard_error
                )
