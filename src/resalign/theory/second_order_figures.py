"""The second-order audit as figures: estimators against finite fine-tuning, and what γ does to their solves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatterMathtext, LogLocator, NullLocator

from resalign.config.report import ReportConfig
from resalign.display import drawing
from resalign.display.drawing import INK, MUTED, RULE, SURFACE, Style
from resalign.theory.second_order import FIRST_ORDER, FIXED, MATCHED, UNROLLED
from resalign.theory.second_order_tables import TITLES, by_rule, estimators

PRINTED = "richardson_printed"
# Of the equation that Eq. 7 as printed iterates on: below it that iteration has gone where it goes.
ELSEWHERE_RESIDUAL = 0.01
# The solution that the sweep compares with counts as one below this relative residual.
SOLVED_RESIDUAL = 1e-6

_ALARM = "#b00020"
_DASHES = ("-", "-", "-", (0, (2.5, 1.5)))  # two solvers that agree are both seen
_MARKERS = ("o", "s", "D", "^", "v", "P")
_FIRST_ORDER_STYLE = Style(MUTED, (0, (5, 2)), "")
_BAND_OPACITY = 0.15
_HEIGHT_INCHES = 3.2
# Above the axis each solver has a lane of its own for what does not fit on it; shares of the axis' height.
_LANE, _STRIP = 0.065, 0.27


@dataclass(frozen=True)
class Scale:
    """The values that an axis shows."""

    low: float
    high: float
    log: bool = True

    def above(self, share: float) -> float:
        """A place above the axis by a share of its height."""
        if self.log:
            return self.high * (self.high / self.low) ** share
        return self.high + share * (self.high - self.low)


_ERRORS, _RESIDUALS, _COSINES = Scale(1e-3, 1e1), Scale(1e-10, 1e2), Scale(-0.5, 1.0, log=False)


def audit_figure(audit: pd.DataFrame, sweep: pd.DataFrame, settings: ReportConfig) -> Figure:
    """Relative error and cosine to unrolling against T, K and γ, the two others held at one choice each.

    Args:
        audit: Rows of :class:`~resalign.theory.second_order.Row`.
        sweep: Rows of :class:`~resalign.theory.second_order.SweepRow`; its T and K are the ones that are held.
        settings: Size, type, colours.
    """
    steps, k = int(sweep["simulated_steps"].iloc[0]), int(sweep["solver_steps"].max())
    gamma = steps * float(audit["lr"].iloc[0])
    matched, fixed = (audit[audit["gamma_rule"] == rule] for rule in (MATCHED, FIXED))
    at_k, at_steps = matched["solver_steps"] == k, matched["simulated_steps"] == steps
    at_both = (fixed["solver_steps"] == k) & (fixed["simulated_steps"] == steps)
    columns = (
        ("simulated_steps", matched[at_k], "simulated steps T", f"Over T, at γ = Tη, K = {k}"),
        ("solver_steps", matched[at_steps], "solver steps K", f"Over K, at γ = Tη, T = {steps}"),
        ("gamma", pd.concat([fixed[at_both], matched[at_k & at_steps]]), "γ", f"Over γ, at T = {steps}, K = {k}"),
    )
    first = audit[audit["estimator"] == FIRST_ORDER]
    measures = (("relative_error", _ERRORS, "relative error"), ("cosine", _COSINES, "cosine"))
    with drawing.theme(settings):
        figure, axes = _panels(2 * len(columns), settings)
        for row, (measure, scale, name) in enumerate(measures):
            for place, (x, frame, label, title) in enumerate(columns):
                axis = axes[row * len(columns) + place]
                at = first if x == "simulated_steps" else first[first["simulated_steps"] == steps]
                _first_order(axis, at, x, measure)
                _lines(axis, frame, x, measure, scale, settings)
                if x == "gamma":
                    _landmarks(axis, {"Tη": gamma})
                else:
                    axis.set_xticks(sorted(set(frame[x])), [str(value) for value in sorted(set(frame[x]))])
                axis.set_xlabel(label)
                if row == 0:
                    axis.set_title(title, pad=18)
            axes[row * len(columns)].set_ylabel(f"{name} to unrolling")
        _legend(figure, estimators(audit), settings, kinds=("diverged", "raised"))
    return figure


def gamma_figure(sweep: pd.DataFrame, settings: ReportConfig) -> Figure:
    """Against γ: the residual of Eq. 6, the distance to its solution, the distance to the unrolled derivative.

    Args:
        sweep: Rows of :class:`~resalign.theory.second_order.SweepRow`.
        settings: Size, type, colours.
    """
    steps, k = int(sweep["simulated_steps"].iloc[0]), int(sweep["solver_steps"].max())
    low, high = (float((sweep[f"{end}_curvature"] / sweep["gamma"]).mean()) for end in ("smallest", "largest"))
    largest, matched = max(abs(low), abs(high)), steps * float(sweep["lr"].iloc[0])
    marks = {"1/max|λ|": 1 / largest, **({"−1/λmin": -1 / low} if low < 0 else {}), "max|λ|": largest}
    solved = sweep.groupby("gamma")["converged_residual"].max() <= SOLVED_RESIDUAL
    small = {name: gamma for name, gamma in marks.items() if gamma <= solved.index[solved].max()}
    panels = (
        ("relative_residual", sweep, _RESIDUALS, "Residual of Eq. 6, relative", marks),
        ("converged_error", sweep[sweep["gamma"].map(solved)], _RESIDUALS, "Distance to the solution of Eq. 6", small),
        ("relative_error", sweep, _ERRORS, f"Distance to unrolling, T = {steps}", {"Tη": matched}),
    )
    with drawing.theme(settings):
        figure, axes = _panels(len(panels), settings)
        for axis, (measure, frame, scale, title, places) in zip(axes, panels, strict=True):
            first, rest = (frame[(frame["estimator"] == FIRST_ORDER) == is_first] for is_first in (True, False))
            _first_order(axis, first, "gamma", measure)
            _lines(axis, rest, "gamma", measure, scale, settings)
            _landmarks(axis, places)
            axis.set_xlim(sweep["gamma"].min() / 1.4, sweep["gamma"].max() * 1.4)
            axis.xaxis.set_major_locator(LogLocator())
            axis.set_title(title, pad=18)
            axis.set_xlabel(f"γ (K = {k})")
        axes[0].axhline(1.0, color=MUTED, linewidth=0.8)
        axes[0].annotate("x = 0", (sweep["gamma"].min(), 1.0), (0, 2), textcoords="offset points", color=MUTED)
        if not solved.all():
            _unsolved(axes[1], float(solved.index[~solved].min()), float(sweep["gamma"].max()))
        _legend(figure, estimators(sweep), settings, kinds=("diverged", "raised", "elsewhere"))
    return figure


def horizon_figure(horizon: pd.DataFrame, settings: ReportConfig) -> Figure:
    """Relative error against T: by gradient descent at each rule of γ, and by Adam.

    Args:
        horizon: Rows of :class:`~resalign.theory.horizon.HorizonRow`.
        settings: Size, type, colours.
    """
    own = horizon[horizon["batch"] == 0].rename(columns={"solver": "estimator"})
    kinds = by_rule(own)
    with drawing.theme(settings):
        figure, axes = _panels(len(kinds), settings)
        for axis, (title, frame) in zip(axes, kinds.items(), strict=True):
            first = frame["estimator"] == FIRST_ORDER
            _first_order(axis, frame[first], "simulated_steps", "relative_error")
            _lines(axis, frame[~first], "simulated_steps", "relative_error", _ERRORS, settings)
            ticks = sorted(set(frame["simulated_steps"]))
            axis.set_xticks(ticks, [str(value) for value in ticks])
            axis.set_xlabel("simulated steps T")
            axis.set_title(title, pad=18)
        axes[0].set_ylabel("relative error")
        _legend(figure, estimators(own), settings, kinds=("diverged", "raised"))
    return figure


def _panels(count: int, settings: ReportConfig) -> tuple[Figure, list[Axes]]:
    """Three in a row."""
    return drawing.panels(count, settings.model_copy(update={"panel_columns": 3}), height=_HEIGHT_INCHES)


def _lines(axis: Axes, frame: pd.DataFrame, x: str, measure: str, scale: Scale, settings: ReportConfig) -> None:
    """The mean over draws as a line, their range as a band, and a mark for the outcome of the worst draw."""
    styles = _styles(frame, settings)
    names = [name for name in estimators(frame) if name != FIRST_ORDER]
    for lane, name in enumerate(names, 1):
        rows, style = frame[frame["estimator"] == name], styles[name]
        marks = _marks(rows, x)
        values = rows.groupby(x)[measure].agg(["mean", "min", "max"])
        values[marks == "raised"] = math.nan
        band = values.clip(scale.low, scale.high)
        axis.fill_between(band.index, band["min"], band["max"], color=style.colour, alpha=_BAND_OPACITY, linewidth=0)
        mean = values["mean"].clip(lower=scale.low)
        mean = mean.where(~(mean > scale.high), scale.above(lane * _LANE))
        axis.plot(mean.index, mean, color=style.colour, linestyle=style.dash, zorder=3)
        if scale.log:
            mean[marks == "raised"] = scale.above(lane * _LANE)
        for kind in dict.fromkeys(marks):
            axis.plot(mean.index[marks == kind], mean[marks == kind], zorder=4, **_marker(kind, style))
    axis.set_xscale("log")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.grid(visible=False, axis="x")
    if scale.log:
        axis.set_yscale("log")
        axis.set_ylim(scale.low, scale.above(_STRIP))
        ticks = LogLocator(numticks=8).tick_values(scale.low, scale.high)
        axis.set_yticks([tick for tick in ticks if scale.low <= tick <= scale.high])
        axis.yaxis.set_major_formatter(LogFormatterMathtext())
        axis.yaxis.set_minor_locator(NullLocator())
        axis.axhspan(scale.high, scale.above(_STRIP), color=RULE, alpha=0.35, linewidth=0, zorder=0)
        axis.annotate("beyond the axis", (0, 1), (3, -3), "axes fraction", "offset points", color=MUTED, va="top")
    else:
        axis.set_ylim(scale.low, scale.above(0.05))


def _marks(rows: pd.DataFrame, x: str) -> pd.Series:
    """The outcome at each x, in the worst of the draws."""

    def of(group: pd.DataFrame) -> str:
        states = set(group["state"])
        if "raised" in states:
            return "raised"
        own = group["printed_residual"].max() if "printed_residual" in group else math.nan
        is_printed = group["estimator"].iloc[0] == PRINTED
        if is_printed and own < ELSEWHERE_RESIDUAL < group["relative_residual"].min():
            return "elsewhere"
        return "diverged" if "diverged" in states else "solved"

    return pd.Series({key: of(group) for key, group in rows.groupby(x)})


def _marker(kind: str, style: Style) -> dict[str, Any]:
    """How a point is drawn."""
    hollow: dict[str, Any] = {"linestyle": "none", "markerfacecolor": SURFACE, "markeredgewidth": 1.1}
    if kind == "diverged":
        return {**hollow, "marker": "X", "markersize": 6.5, "markeredgecolor": _ALARM}
    if kind == "raised":
        return {**hollow, "marker": "v", "markersize": 5.5, "markeredgecolor": _ALARM}
    if kind == "elsewhere":
        return {**hollow, "marker": "D", "markersize": 5.5, "markeredgecolor": style.colour}
    edge = {"markeredgecolor": SURFACE, "markeredgewidth": 0.4}
    return {"linestyle": "none", "marker": style.marker, "markersize": 4.5, "markerfacecolor": style.colour, **edge}


def _styles(frame: pd.DataFrame, settings: ReportConfig) -> dict[str, Style]:
    """A solver's style by its place among the known ones, so that every panel agrees."""
    solvers = [name for name in TITLES if name not in (UNROLLED, FIRST_ORDER)]
    solvers += [name for name in estimators(frame) if name not in TITLES]
    return {
        name: Style(settings.palette[i % len(settings.palette)], _DASHES[i % len(_DASHES)], _MARKERS[i % len(_MARKERS)])
        for i, name in enumerate(solvers)
    }


def _first_order(axis: Axes, rows: pd.DataFrame, x: str, measure: str) -> None:
    """The estimate without curvature: a line over what it depends on, level over what it does not."""
    style: dict[str, Any] = {"color": MUTED, "linestyle": _FIRST_ORDER_STYLE.dash, "linewidth": 1.3, "zorder": 2}
    means = rows.groupby(x)[measure].mean()
    if x in ("simulated_steps", "gamma") and len(means) > 1:
        axis.plot(means.index, means, **style)
    else:
        axis.axhline(rows[measure].mean(), **style)


def _landmarks(axis: Axes, places: dict[str, float]) -> None:
    """Dotted lines at values of γ that mean something, named above the panel."""
    for name, gamma in places.items():
        axis.axvline(gamma, color=INK, linewidth=0.9, linestyle=(0, (1, 1.5)), zorder=1)
        axis.text(gamma, 1.015, name, transform=axis.get_xaxis_transform(), ha="center", va="bottom", color=INK)


def _unsolved(axis: Axes, first: float, last: float) -> None:
    """Says where there is no solution to be distant from."""
    axis.axvspan(first / 1.2, last * 1.4, color=RULE, alpha=0.6, linewidth=0, zorder=0)
    middle = math.sqrt(first * last)
    power = round(math.log10(SOLVED_RESIDUAL))
    text = f"no solution known:\nMINRES leaves a\nresidual above $10^{{{power}}}$"
    axis.text(middle, 0.35, text, transform=axis.get_xaxis_transform(), ha="center", va="center", color=MUTED)


def _legend(figure: Figure, names: Sequence[str], settings: ReportConfig, *, kinds: Sequence[str]) -> None:
    """One key for all panels, below them."""
    styles = _styles(pd.DataFrame({"estimator": list(names)}), settings)
    lines: dict[str, dict[str, Any]] = {
        TITLES[FIRST_ORDER]: {"color": MUTED, "linestyle": _FIRST_ORDER_STYLE.dash, "linewidth": 1.3}
    }
    for name in (name for name in names if name in styles):
        style = styles[name]
        lines[TITLES.get(name, name)] = {**_marker("solved", style), "color": style.colour, "linestyle": style.dash}
    meanings = {
        "diverged": "diverged: residual of Eq. 6 above 1",
        "raised": "gave up in a draw",
        "elsewhere": "solves γI + H instead",
    }
    lines |= {meanings[kind]: _marker(kind, styles.get(PRINTED, _FIRST_ORDER_STYLE)) for kind in kinds}
    handles = [Line2D([], [], label=label, **style) for label, style in lines.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, handlelength=2.6)
