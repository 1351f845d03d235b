"""The linear model of concept resurgence as text and figure: what holds of Proposition 5.1, reading by reading."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from resalign.config.report import ReportConfig
from resalign.display import drawing
from resalign.display.drawing import MUTED
from resalign.display.text_table import markdown, number
from resalign.hashes import verified
from resalign.tensors.steps import DivergenceError
from resalign.theory.linear_model import COLUMNS_IN_S, FREE, GRADIENT, ROUNDING, ROWS_IN_C, ROWS_IN_S, UPDATE

READING = ["quantity", "reading", "step"]
# An inequality that holds with equality in exact arithmetic must not fail by its last digits.
SLACK = 1e-9
AGREEMENT = 1e-6  # to which simulation and closed form must agree
HALF = 0.5  # the published constant 2 becomes the 1 of a Newton step by the Hessian 2Σ_t

WHAT = {
    FREE: "W moves freely",
    ROWS_IN_S: "W moves in S: ∇L·P_S",
    COLUMNS_IN_S: "S on the output's side: P_S·∇L",
    ROWS_IN_C: "W moves in C",
}
INTRODUCTION = """# The linear model of concept resurgence

Proposition 5.1 of "Unstable Unlearning" in float64: loss E‖Wx_t − ε‖², W₀ = (I − P_C)W*, and so P_C W₀ = 0.
Simulated from {samples} examples with the population's second moments (automatic differentiation, least
squares, descent) and in closed form, at {points} points: (dim C, dim S) in {subspaces}; cos² of the angle
between C and S in {overlaps}; variance of the data in C in {curvatures} (1 elsewhere); timestep in {positions}.
Every sentence is computed from linear_model.csv.
"""


def read(path: Path) -> pd.DataFrame:
    """The table as scripts/linear_model.py has written it; a gradient's ``step`` is empty, and no missing number."""
    return pd.read_csv(verified(path)).fillna({"step": ""})


def page(frame: pd.DataFrame, samples: int) -> str:
    """The whole text.

    Args:
        frame: Rows of :class:`~resalign.theory.linear_model.Row`.
        samples: Examples behind each simulation.
    """
    points = frame[["concept_dimension", "supervision_dimension", "overlap", "curvature", "position"]]
    sizes = points[["concept_dimension", "supervision_dimension"]].drop_duplicates()
    head = INTRODUCTION.format(
        samples=samples,
        points=len(points.drop_duplicates()),
        subspaces=", ".join(f"({k}, {s})" for k, s in sizes.itertuples(index=False)),
        **{f"{name}s": _values(points[name]) for name in ("overlap", "curvature", "position")},
    )
    said = "\n".join(f"- {sentence}" for sentence in conclusions(frame))
    return f"{head}\n{said}\n\n{_table(frame)}"


def conclusions(frame: pd.DataFrame) -> Iterator[str]:
    """Sentences on agreement, on the printed leakage, and on each bound.

    Raises:
        DivergenceError: If a simulation or a difference is not finite: no sentence would notice it.
    """
    measured = ["simulated", "closed_form", "difference"]
    lost = frame[~np.isfinite(frame[measured].to_numpy()).all(axis=1)]
    if len(lost):
        first = lost[[*READING, *measured]].iloc[0].to_dict()
        raise DivergenceError(
            f"linear model: {len(lost)} of {len(frame)} rows are not finite, first {first}; look at"
            " theory.linear_model: descent_share is a learning rate, curvatures and beta_end set the scale"
        )
    worst = float(frame["difference"].max())
    verb = "agree" if worst <= AGREEMENT else "DO NOT agree"
    yield f"Simulated and closed-form gradients and updates {verb} to {AGREEMENT:g}: largest difference {worst:.1e}."
    yield _whole_space(frame)
    yield _over_s(frame)
    for (quantity, reading, step), rows in frame.groupby(READING, sort=False):
        yield _verdict(str(quantity), str(reading), str(step), rows)
    apart = frame[(frame["quantity"] == GRADIENT) & (frame["reading"] == FREE) & (frame["overlap"] == 0)]
    if len(apart) and (apart["simulated"] > ROUNDING).all():
        low, high = number(apart["simulated"].min()), number(apart["simulated"].max())
        yield (
            f"Without any overlap (cos² = 0) the free gradient's part in C is still {low} to {high}: noise"
            " reaches every direction, and no overlap is needed."
        )


def _whole_space(frame: pd.DataFrame) -> str:
    vacuous, points = int((frame["bound_whole"] == 0).sum()), len(frame)
    if vacuous == points:
        return (
            "As printed, γ = λ_min(P_S P_C P_S) is an eigenvalue over the whole space, and it is 0 at every point: both"
            " published bounds read 0 ≤ … and are vacuous."
        )
    return f"As printed, γ = λ_min(P_S P_C P_S) is 0 at {vacuous} of {points} rows; there both bounds are vacuous."


def _over_s(frame: pd.DataFrame) -> str:
    wide = frame["supervision_dimension"] > frame["concept_dimension"]
    text = "The natural reading, γ = λ_min(U_Sᵀ P_C U_S) over S, is what every ratio below is to."
    if wide.any() and (frame.loc[wide, "leakage"] == 0).all():
        text += " It is 0, and the bounds vacuous, wherever dim S > dim C: some direction of S is then orthogonal to C."
    return text


def _verdict(quantity: str, reading: str, step: str, rows: pd.DataFrame) -> str:
    """One reading's sentence."""
    positive = rows[rows["bound"] > 0]
    name = f"**{quantity}, {WHAT[reading]}{f', {step}' if step else ''}**"
    if positive.empty:
        return f"{name}: the bound is 0 at every point, and says nothing."
    held, points = _held(positive), len(positive)
    # Of equal ones the first: their last digits are rounding, and not in the table.
    worst = positive[positive["ratio"] <= positive["ratio"].min() + SLACK].iloc[0]
    if held == points:
        return f"{name}: the bound holds at all {points} points where it is positive; smallest ratio {_ratio(worst)}."
    text = f"{name}: the bound does NOT hold at {points - held} of {points} points; smallest ratio {_ratio(worst)}."
    if quantity == UPDATE:
        halved = _held(positive, HALF)
        text += f" With the constant 1 in place of 2 it holds at {halved} of {points}"
        if halved < points and reading == ROWS_IN_S:
            over_s = int((positive["simulated"] >= positive["bound_over_s"] * (1 - SLACK)).sum())
            text += f", and with λ_max over S in place of C besides at {over_s}"
        text += "."
    return text


def _held(rows: pd.DataFrame, share: float = 1.0) -> int:
    return int((rows["ratio"] >= share - SLACK).sum())


def _ratio(row: pd.Series) -> str:
    where = f"dim C {row['concept_dimension']}, cos² {row['overlap']:g}, variance {row['curvature']:g}"
    return f"{number(row['ratio'])} ({where}, t {row['position']})"


def _values(column: pd.Series) -> str:
    return ", ".join(f"{value:g}" for value in column.drop_duplicates())


def _table(frame: pd.DataFrame) -> str:
    head = ("quantity", "reading", "step", "bound > 0", "held", "ratio, smallest", "ratio, largest", "difference")
    lines = []
    for (quantity, reading, step), rows in frame.groupby(READING, sort=False):
        positive = rows[rows["bound"] > 0]
        ends = [number(positive["ratio"].min()), number(positive["ratio"].max())] if len(positive) else ["", ""]
        counts = [str(len(positive)), str(_held(positive))]
        lines.append([str(quantity), str(reading), str(step), *counts, *ends, f"{rows['difference'].max():.1e}"])
    return markdown(head, lines)


def ratio_figure(frame: pd.DataFrame, settings: ReportConfig) -> Figure:
    """Simulated over published against overlap, a panel a reading; below the line at 1 the bound does not hold."""
    positive = frame[frame["bound"] > 0]
    groups = list(positive.groupby(READING, sort=False))
    with drawing.theme(settings):
        figure, axes = drawing.panels(len(groups), settings)
        for axis, ((quantity, reading, step), rows) in zip(axes, groups, strict=True):
            for place, (curvature, points) in enumerate(rows.groupby("curvature")):
                axis.plot(
                    points["overlap"],
                    points["ratio"],
                    linestyle="none",
                    marker="o",
                    markersize=3,
                    color=settings.palette[place % len(settings.palette)],
                    label=f"variance {curvature:g} in C",
                )
            axis.axhline(1, color=MUTED, linewidth=1)
            axis.axhline(HALF, color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)))
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_title(f"{quantity}, {reading}" + (f"\n{step}" if step else ""))
            axis.set_xlabel("cos² of the angle between C and S")
            axis.set_ylabel("simulated / bound")
        axes[0].legend(frameon=False, fontsize=settings.font_points - 2)
    return figure
