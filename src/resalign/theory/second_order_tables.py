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


def horizon_tables(horizon: pd.DataFrame) -> str:
    """Tables in Markdown of the error: over T, by optimizer and rule of γ, and over the batch of H at one T.

    Args:
        horizon: Rows of :class:`~resalign.theory.horizon.HorizonRow`.
    """
    draws, own = horizon["draw"].nunique(), horizon[horizon["batch"] == 0]
    parts = [
        f"Relative error to the derivative through every step, mean over {draws} draws. ✗: diverged in at least one."
    ]
    for name, rows in by_rule(own).items():
        parts.append(f"{name}, η = {rows['lr'].iloc[0]:g}:")
        parts.append(_error_table(rows, "simulated_steps", "T = {}"))
    other = horizon[(horizon["optimizer"] == "sgd") & (horizon["gamma_rule"] == MATCHED)]
    steps = sorted(set(other.loc[other["batch"] > 0, "simulated_steps"]))
    for at in steps:
        parts.append(f"H over another batch than was fine-tuned on, gradient descent, T = {at}, γ = Tη; 0: the same:")
        parts.append(_error_table(other[other["simulated_steps"] == at], "batch", "{} examples"))
    return "\n\n".join(parts) + "\n"


def by_rule(horizon: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows by optimizer and rule of γ, in words; first order, which has no γ, is in each."""
    names = {"sgd": "Gradient descent", "adam": "Adam"}
    rules = {MATCHED: "γ = Tη", MATCHED_DISPLACEMENT: "γ matched to Δ"}
    keys = horizon["optimizer"].map(names) + ", " + horizon["gamma_rule"].map(rules)
    fixed = horizon["gamma_rule"] == FIXED
    keys[fixed] = horizon["optimizer"].map(names) + ", γ = " + horizon["gamma"].map("{:g}".format)
    return {str(key): horizon[keys == key] for key in keys.drop_duplicates()}


def costs_table(costs: pd.DataFrame) -> str:
    """What an estimate takes, means over draws.

    Args:
        costs: Rows of :class:`~resalign.theory.horizon.CostRow`.
    """
    means = costs.groupby("solver", sort=False)[["products", "seconds", "peak_megabytes"]].mean()
    lines = [[str(name), *map(number, row)] for name, row in zip(means.index, means.to_numpy(), strict=True)]
    return markdown(("estimate", "products", "seconds", "MB above what was held"), lines)


def _error_table(rows: pd.DataFrame, column: str, head: str) -> str:
    """One line a solver, one column a value."""
    values, lines = sorted(set(rows[column])), []
    for solver in rows["solver"].drop_duplicates():
        at = [rows[(rows["solver"] == solver) & (rows[column] == value)] for value in values]
        lines.append([str(solver), *map(_error, at)])
    return markdown(("solver", *(head.format(value) for value in values)), lines).rstrip("\n")


def _error(rows: pd.DataFrame) -> str:
    raised = int((rows["state"] == "raised").sum())
    text = f"raised {raised} of {len(rows)}" if raised else number(float(rows["relative_error"].mean()))
    return text + " ✗" * bool((rows["state"] == "diverged").any())


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
                cells.append(_error(rows))
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
