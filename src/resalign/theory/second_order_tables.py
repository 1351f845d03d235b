"""The second-order audit as Markdown tables: estimators against finite fine-tuning, over T, γ and K."""

from __future__ import annotations

import math

import pandas as pd

from resalign.display.text_table import markdown, number
from resalign.theory.second_order import FIRST_ORDER, FIXED, MATCHED, MATCHED_DISPLACEMENT, UNROLLED

TITLES = {
    UNROLLED: "unrolled",
    FIRST_ORDER: "first order",
    "richardson": "Richardson",
    "richardson_printed": "Richardson, Eq. 7 as printed",
    "conjugate_gradient": "conjugate gradients",
    "minres": "MINRES",
}
RULES = {MATCHED: "matched", MATCHED_DISPLACEMENT: "matched to Δ"}


def markdown_tables(audit: pd.DataFrame, sweep: pd.DataFrame) -> str:
    """Two tables in Markdown: every estimator at matched γ over T, and the relative error over γ and K at one T.

    Args:
        audit: Rows of :class:`~resalign.theory.second_order.Row`.
        sweep: Rows of :class:`~resalign.theory.second_order.SweepRow`; says which T and K stand for the rest.
    """
    steps, k = int(sweep["simulated_steps"].iloc[0]), int(sweep["solver_steps"].max())
    return f"{_matched_table(audit, k)}\n{_grid_table(audit, steps)}"


def _matched_table(audit: pd.DataFrame, k: int) -> str:
    """One line an estimator and T, γ = Tη, K products."""
    title = (
        f"At matched γ = Tη and K = {k}. Mean [smallest, largest] over {audit['draw'].nunique()} draws; the relative"
        " errors are to unrolling and, along random directions, to central differences."
    )
    head = ("T", "estimator", "cosine", "error to unrolling", "error to differences", "residual of Eq. 6", "state")
    lines = []
    for steps, group in audit.groupby("simulated_steps"):
        for name in estimators(audit):
            rows = group[group["estimator"] == name]
            if name not in (UNROLLED, FIRST_ORDER):
                rows = rows[(rows["gamma_rule"] == MATCHED) & (rows["solver_steps"] == k)]
            columns = ("cosine", "relative_error", "difference_error", "relative_residual")
            values = ["" if name == UNROLLED and c != "difference_error" else _spread(rows[c]) for c in columns]
            lines.append([str(steps), TITLES.get(name, name), *values, _states(rows)])
    return f"{title}\n\n{markdown(head, lines)}"


def _grid_table(audit: pd.DataFrame, steps: int) -> str:
    """Relative error to unrolling, one line a solver and K, one column a γ."""
    at = audit[audit["simulated_steps"] == steps]
    solved = at[at["gamma_rule"].isin((FIXED, MATCHED, MATCHED_DISPLACEMENT))]
    first = at[at["estimator"] == FIRST_ORDER]["relative_error"]
    eta = float(at["lr"].iloc[0])
    title = (
        f"Relative error to unrolling at T = {steps} (η = {eta:g}), mean over {audit['draw'].nunique()} draws; first"
        f" order: {number(first.mean())}. ✗: diverged, a residual of Eq. 6 above that of x = 0, in at least one draw."
    )
    fixed = sorted(set(solved.loc[solved["gamma_rule"] == FIXED, "gamma"]))
    keys = [(FIXED, gamma) for gamma in fixed] + [(rule, math.nan) for rule in RULES]
    head = ("solver", "K", *(f"γ = {gamma:g}" for gamma in fixed), *_matched_titles(solved))
    lines = []
    for name in (name for name in estimators(audit) if name not in (UNROLLED, FIRST_ORDER)):
        for k in sorted(set(solved["solver_steps"])):
            of_solver = solved[(solved["estimator"] == name) & (solved["solver_steps"] == k)]
            cells = []
            for rule, gamma in keys:
                rows = of_solver[of_solver["gamma_rule"] == rule]
                rows = rows[rows["gamma"] == gamma] if rule == FIXED else rows
                raised = int((rows["state"] == "raised").sum())
                cell = f"raised {raised} of {len(rows)}" if raised else number(rows["relative_error"].mean())
                cells.append(cell + (" ✗" if (rows["state"] == "diverged").any() else ""))
            lines.append([TITLES.get(name, name), str(k), *cells])
    return f"{title}\n\n{markdown(head, lines)}"


def _matched_titles(solved: pd.DataFrame) -> list[str]:
    """The matched rules with their γ."""
    return [
        f"{title}, γ = {_spread(solved.loc[solved['gamma_rule'] == rule, 'gamma'].drop_duplicates())}"
        for rule, title in RULES.items()
    ]


def _spread(values: pd.Series) -> str:
    """``mean [smallest, largest]``, or one number where they are the same; empty for NaN throughout."""
    known = values.dropna()
    if known.empty:
        return ""
    mean, low, high = (number(value) for value in (known.mean(), known.min(), known.max()))
    return mean if low == high else f"{mean} [{low}, {high}]"


def _states(rows: pd.DataFrame) -> str:
    """``diverged``, or ``raised 2, converged 1`` where the draws differ."""
    counts = rows["state"].value_counts().sort_index()
    if len(counts) == 1:
        return str(counts.index[0]).replace("_", " ")
    return ", ".join(f"{name} {count}".replace("_", " ") for name, count in counts.items())


def estimators(frame: pd.DataFrame) -> list[str]:
    """Names in the order of the table's rows."""
    return list(frame["estimator"].drop_duplicates())
