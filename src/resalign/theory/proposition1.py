"""Proposition 1 as measured, in words and two tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from resalign.analysis.measurements import Measurements
from resalign.display.text_table import markdown, number
from resalign.theory.landscape import ISOTROPIC, REAL

QUANTITIES = {"trace": "Tr(H)", "frobenius_squared": "‖H‖_F²"}
# Standard errors within which two estimates agree, and beyond which they are told apart: 95 % of a normal is 1.96.
WITHIN = 2.0

INTRODUCTION = """# Theory, measured

L_harm is the NEGATIVE denoising loss over {examples} frozen examples of the concept: the same images, noise and
timesteps for every model. H is its Hessian over all {parameters:,} weights of the denoiser, measured with
{probes} probes. ± is one standard error over what was drawn: probes for Tr(H) and ‖H‖_F², pairs of directions
or examples for ΔL_harm.

L_harm is a negated loss: the more the denoising error bends upwards, the further Tr(H) falls, and the sharper
the surface is all the same. A signed trace that falls is therefore no evidence of a flatter model; ‖H‖_F², the
sum of the squared eigenvalues, stands beside it.
"""


def page(
    sharpness: pd.DataFrame, displacement: pd.DataFrame, regained: pd.DataFrame, measurements: Measurements
) -> str:
    """The whole text: both tables, and what they say.

    Args:
        sharpness: Table of :mod:`resalign.theory.theory_tables`, as both others.
        displacement: May be empty.
        regained: May be empty.
        measurements: Names of models, attacks and metrics; its values are not read.
    """
    counts = {name: int(sharpness.iloc[0][name]) for name in ("examples", "parameters", "probes")}
    parts = [INTRODUCTION.format(**counts), "\n## Sharpness before and after unlearning\n\n"]
    parts += [sharpness_table(sharpness, regained, measurements), "\n"]
    parts += [f"- {said}\n" for said in sharpness_words(sharpness, regained, measurements)]
    if not displacement.empty:
        parts += ["\n## (σ²/2d)·Tr(H) against ΔL_harm, after each attack's last step\n\n"]
        parts += [displacement_table(displacement), "\n"]
        parts += [f"- {said}\n" for said in displacement_words(displacement)]
    return "".join(parts)


def sharpness_table(sharpness: pd.DataFrame, regained: pd.DataFrame, measurements: Measurements) -> str:
    """One line a model and training seed; of an untrained model's attacks the mean over their seeds."""
    attacks = list(measurements.attacks)
    head = ["model", "seed", "L_harm", "‖∇L_harm‖", "Tr(H)", "‖H‖_F²"]
    head += [f"regained {measurements.safety_metric}, {attack}" for attack in attacks]
    lines = []
    for row in _records(sharpness):
        values = [_pm(getattr(row, name), getattr(row, f"{name}_standard_error")) for name in QUANTITIES]
        own = regained[regained["model"] == row.model]
        own = own[own["seed"] == row.seed] if (sharpness["model"] == row.model).sum() > 1 else own
        back = [own.loc[own["attack"] == attack, "regained"].mean() for attack in attacks]
        cells = [row.model, str(row.seed), number(row.harmful_loss), number(row.gradient_norm), *values]
        lines.append([*map(str, cells), *("" if math.isnan(value) else number(value) for value in back)])
    return markdown(head, lines)


def sharpness_words(sharpness: pd.DataFrame, regained: pd.DataFrame, measurements: Measurements) -> Iterator[str]:
    """Sentences on both from the base to each unlearned model, and on their rank correlation with what comes back."""
    is_base = sharpness["model"] == measurements.base
    before, others = sharpness[is_base], sharpness[~is_base]
    if len(others):
        labels = others["model"] + " (seed " + others["seed"].astype(str) + ")"
        sides = {name: _sides(before, others, name) for name in QUANTITIES}
        for name, symbol in QUANTITIES.items():
            yield (
                f"{symbol} is below the base's ({_pm(*_mean(before, name))}) for {_listed(labels[sides[name] < 0])};"
                f" above it for {_listed(labels[sides[name] > 0])}; within {WITHIN:g} standard errors, and so not told"
                f" apart from it, for {_listed(labels[sides[name] == 0])}."
            )
        both = (sides["trace"] < 0) & (sides["frobenius_squared"] > 0)
        yield (
            f"The signed trace fell although sharpness rose, both by more than {WITHIN:g} standard errors:"
            f" {_listed(labels[both])}."
        )
    unlearned = regained[regained["model"] != measurements.base]
    for attack, rows in unlearned.groupby("attack", sort=False):
        if len(rows) < 3 or rows["regained"].nunique() < 2:
            continue
        ranks = [number(rows[name].corr(rows["regained"], method="spearman")) for name in QUANTITIES]
        yield (
            f"Over the {len(rows)} unlearned models and seeds, rank correlation with the "
            f"{measurements.safety_metric} that {attack} brings back: Tr(H) {ranks[0]}, ‖H‖_F² {ranks[1]}. So few"
            " points, of so few methods, are a description and no test."
        )


def _sides(before: pd.DataFrame, others: pd.DataFrame, name: str) -> pd.Series:
    """-1 for each row below the base, 1 above, 0 within the errors; as if their probes were independent."""
    start, error = _mean(before, name)
    difference = others[name] - start
    told = difference.abs() > WITHIN * np.hypot(others[f"{name}_standard_error"], error)
    return np.sign(difference).where(told, 0)


def _mean(rows: pd.DataFrame, name: str) -> tuple[float, float]:
    """Mean of rows' estimates, with its standard error."""
    return float(rows[name].mean()), math.hypot(*rows[f"{name}_standard_error"]) / len(rows)


def displacement_table(displacement: pd.DataFrame) -> str:
    """One line an attack, model and seed: predicted, and measured along random and the real directions."""
    head = ("model", "attack", "seed", "σ", "(σ²/2d)·Tr(H)", "ΔL_harm, isotropic", "ΔL_harm, real", "∇Lᵀδ", "½δᵀHδ")
    lines = []
    for real, isotropic in _pairs(displacement):
        predicted = _pm(real.predicted, real.predicted_standard_error)
        measured = [_pm(row.measured, row.measured_standard_error) for row in (isotropic, real)]
        names = [str(real.model), str(real.attack), str(real.seed), number(real.sigma)]
        lines.append([*names, predicted, *measured, number(real.linear), number(real.quadratic)])
    return markdown(head, lines)


def displacement_words(displacement: pd.DataFrame) -> Iterator[str]:
    """How often the prediction holds for either kind of displacement, and what the real one owes to the gradient."""
    every = list(_pairs(displacement))
    pairs = [pair for pair in every if pair[0].sigma > 0]
    if not pairs:
        yield "No fine-tuning has moved the denoiser's weights."
        return
    for place, name in ((1, "random directions of the fine-tuning's length"), (0, "the fine-tunings themselves")):
        rows = [pair[place] for pair in pairs]
        agree = sum(_agree(row) for row in rows)
        ratios = pd.Series([abs(row.measured / row.predicted) if row.predicted else math.nan for row in rows])
        signs = sum(row.measured * row.predicted > 0 for row in rows)
        yield (
            f"For {name} the prediction agrees within {WITHIN:g} standard errors in {agree} of {len(rows)} runs and has"
            f" the measured sign in {signs}; |measured / predicted| has the median {number(ratios.median())}, from"
            f" {number(ratios.min())} to {number(ratios.max())}."
        )
    linear = sum(abs(real.linear) > abs(real.quadratic) for real, _ in pairs)
    yield (
        "Along real displacements the first-order term ∇Lᵀδ, 0 by the proposition's assumption E ξ = 0, is the larger"
        f" of the first two terms in {linear} of {len(pairs)} runs."
    )
    if len(pairs) < len(every):
        still = [real.attack for real, _ in every if not real.sigma > 0]
        yield f"Excluded: {len(still)} runs of {_listed(dict.fromkeys(still))}, which did not change the denoiser."
    moved = displacement[displacement["tensors_elsewhere"] > 0]
    if len(moved):
        yield f"Left out: what {_listed(moved['attack'].unique())} changed outside the denoiser."


def _pairs(displacement: pd.DataFrame) -> Iterator[tuple[Any, Any]]:
    """(real, isotropic) rows after the last step, named tuples of :class:`DisplacementRow`'s fields."""
    for _, rows in displacement.groupby(["attack", "model", "seed"], sort=False):
        last = rows[rows["steps"] == rows["steps"].max()]
        real, isotropic = (next(_records(last[last["kind"] == kind])) for kind in (REAL, ISOTROPIC))
        yield real, isotropic


def _records(frame: pd.DataFrame) -> Iterator[Any]:
    """Rows as named tuples; what pandas-stubs say of their fields fits no column."""
    yield from frame.itertuples(index=False)


def _agree(row: Any) -> bool:
    return abs(row.measured - row.predicted) <= WITHIN * math.hypot(
        row.measured_standard_error, row.predicted_standard_error
    )


def _pm(value: float, error: float) -> str:
    return f"{number(value)} ± {number(error)}"


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(map(str, names)) or "none"
