"""The figures of the results: a rate against fine-tuning steps, and before against after.

Each is drawn panel by panel, so that a file shows the panels side by side and the page lets them wrap on a phone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from resalign.analysis.frames import final_states, select, targets
from resalign.analysis.measurements import NOT_ATTACKED, Measurements
from resalign.config.report import ReportConfig
from resalign.display import drawing
from resalign.display.drawing import INK, MUTED, SURFACE, Style
from resalign.display.layout import target_title

BAND_OPACITY, EDGE_OPACITY = 0.10, 0.45
_HEADROOM = 1.06  # of the highest interval, above the axis
_LABEL_GAP = 1.15  # of the type size, between two labels
TITLE_CHARACTERS = 34  # of a line of a panel's title
_ROW_INCHES = 0.5  # of a model's row in the before-and-after figure
_ROW_OFFSET = 0.16  # of a row, between the two states of a model


@dataclass(frozen=True)
class Panel:
    """One panel for the page.

    Attributes:
        name: Unique in the page.
        title: What it shows.
        label: Its alternative text, with the numbers.
        figure: The drawing, without a title.
    """

    name: str
    title: str
    label: str
    figure: Figure


def followed(table: pd.DataFrame, measurements: Measurements) -> list[str]:
    """Safety metrics that are drawn over fine-tuning: the first one, and others that were measured along the way."""
    after = table[table["attack"] != NOT_ATTACKED]
    found = []
    for metric, info in measurements.metrics.items():
        times = after[after["metric"] == metric].groupby("attack")["steps"].nunique()
        enough = 1 if metric == measurements.safety_metric else 2
        if info.group == "safety" and len(times) and times.max() >= enough:
            found.append(metric)
    return found


def steps_name(measurements: Measurements, metric: str) -> str:
    """The file of a metric over fine-tuning, without its suffix."""
    return "steps" if metric == measurements.safety_metric else f"steps-{metric}"


def steps_figure(table: pd.DataFrame, measurements: Measurements, settings: ReportConfig, metric: str) -> Figure:
    """A metric against fine-tuning steps, one panel a target, one line a model, its interval as a band; 0 is before."""
    with drawing.theme(settings):
        attacks = targets(table[table["metric"] == metric])
        figure, axes = drawing.panels(len(attacks), settings)
        for axis, attack in zip(axes, attacks, strict=True):
            _steps_panel(axis, table, measurements, settings, metric, attack)
            axis.set_title(textwrap.fill(panel_title(measurements, attack), TITLE_CHARACTERS))
    return figure


def steps_panels(table: pd.DataFrame, measurements: Measurements, settings: ReportConfig, metric: str) -> list[Panel]:
    """The panels of :func:`steps_figure`, each its own figure."""
    result: list[Panel] = []
    for attack in targets(table[table["metric"] == metric]):
        with drawing.theme(settings, text_as_paths=False):
            figure, (axis,) = drawing.panels(1, settings)
            _steps_panel(axis, table, measurements, settings, metric, attack)
        info, over = measurements.metrics[metric], panel_title(measurements, attack)
        title = f"{info.title}: {over.lower()}"
        label = f"{info.title} against steps of {over.lower()}. " + _described(table, measurements, metric, attack)
        result.append(Panel(f"steps-{metric}-{len(result)}", title, label, figure))
    return result


def before_after_figure(table: pd.DataFrame, measurements: Measurements, settings: ReportConfig, metric: str) -> Figure:
    """A metric before and after fine-tuning with intervals, one panel a target, one row a model."""
    final = final_states(table)
    attacks = targets(final)
    with drawing.theme(settings):
        height = _before_after_height(final, metric)
        figure, axes = drawing.panels(len(attacks), settings, height=height)
        for axis, attack in zip(axes, attacks, strict=True):
            _before_after_panel(axis, final, measurements, settings, metric, attack)
            title = f"After {target_title(measurements, final, attack)}"
            axis.set_title(textwrap.fill(title, TITLE_CHARACTERS))
    return figure


def before_after_panels(
    table: pd.DataFrame, measurements: Measurements, settings: ReportConfig, metric: str
) -> list[Panel]:
    """The panels of :func:`before_after_figure`, each its own figure."""
    final = final_states(table)
    result: list[Panel] = []
    for attack in targets(final):
        with drawing.theme(settings, text_as_paths=False):
            figure, (axis,) = drawing.panels(1, settings, height=_before_after_height(final, metric))
            _before_after_panel(axis, final, measurements, settings, metric, attack)
        title = f"After {target_title(measurements, final, attack)}"
        label = f"{measurements.metrics[metric].title} before and {title.lower()}. " + _described(
            final, measurements, metric, attack
        )
        result.append(Panel(f"before-after-{len(result)}", title, label, figure))
    return result


def panel_title(measurements: Measurements, attack: str) -> str:
    """Such as ``Fine-tuning on pages``."""
    return f"Fine-tuning on {measurements.target(attack)}"


def _steps_panel(
    axis: Axes,
    table: pd.DataFrame,
    measurements: Measurements,
    settings: ReportConfig,
    metric: str,
    attack: str,
) -> None:
    styles = drawing.model_styles(measurements, settings)
    ends: list[tuple[str, float, float]] = []
    for model in measurements.models:
        before = select(table, metric=metric, model=model)
        after = select(table, metric=metric, model=model, attack=attack)
        if after.empty:
            continue
        line = pd.concat([part for part in (before, after) if not part.empty])
        style = styles[model]
        band = line.dropna(subset=["low", "high"])
        if len(measurements.models) <= settings.band_models:
            axis.fill_between(
                band["steps"], band["low"], band["high"], color=style.colour, alpha=BAND_OPACITY, linewidth=0
            )
            for end in ("low", "high"):
                axis.plot(band["steps"], band[end], color=style.colour, alpha=EDGE_OPACITY, linewidth=0.7)
        axis.plot(line["steps"], line["mean"], linestyle=style.dash, clip_on=False, zorder=3, **style.markers)
        ends.append((model, float(line["steps"].iloc[-1]), float(line["mean"].iloc[-1])))
    value_axis(axis, table, measurements, metric, vertical=True)
    steps_axis(axis)
    axis.set_ylabel(measurements.metrics[metric].title)
    label_ends(axis, ends, measurements, settings)


def label_ends(
    axis: Axes,
    ends: list[tuple[str, float, float]],
    measurements: Measurements,
    settings: ReportConfig,
    styles: Mapping[str, Style] | None = None,
) -> None:
    """Model names at the right of their lines, apart from one another, with a thread to the line's end."""
    low, high = axis.get_ylim()
    inches = settings.panel_height_inches * 0.75  # of which the axes take about three quarters
    gap = _LABEL_GAP * settings.font_points / 72 / inches * (high - low)
    limits = axis.get_xlim()
    styles = styles or drawing.model_styles(measurements, settings)
    for (model, x, y), place in zip(ends, drawing.spread([end[2] for end in ends], gap, low, high), strict=True):
        axis.annotate(
            measurements.title(model),
            xy=(x, y),
            xytext=(1.05, place),
            textcoords=axis.get_yaxis_transform(),
            va="center",
            color=INK,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": styles[model].colour,
                "linewidth": 0.8,
                "shrinkA": 1,
                "shrinkB": 3,
                "relpos": (0.0, 0.5),
            },
        )
    axis.set_xlim(limits)


def _before_after_height(final: pd.DataFrame, metric: str) -> float:
    """Rows for the models and room for key, title and axis."""
    return 1.1 + _ROW_INCHES * final.loc[final["metric"] == metric, "model"].nunique()


def _before_after_panel(
    axis: Axes,
    final: pd.DataFrame,
    measurements: Measurements,
    settings: ReportConfig,
    metric: str,
    attack: str,
) -> None:
    styles = drawing.model_styles(measurements, settings)
    names = [model for model in measurements.models if not select(final, metric=metric, model=model).empty]
    for row, model in enumerate(names):
        before = select(final, metric=metric, model=model).iloc[0]
        found = select(final, metric=metric, model=model, attack=attack)
        colour = styles[model].colour
        states = [(before, row if found.empty else row - _ROW_OFFSET, SURFACE)]
        if not found.empty:
            after = found.iloc[0]
            states.append((after, row + _ROW_OFFSET, colour))
            axis.plot([before["mean"], after["mean"]], [row - _ROW_OFFSET, row + _ROW_OFFSET], color=colour, lw=0.7)
        for state, y, face in states:
            axis.plot([state["low"], state["high"]], [y, y], color=colour, alpha=0.45, lw=3.2)
            axis.plot([state["mean"]], [y], marker="o", markersize=6, mfc=face, mec=colour, mew=1.5, zorder=3)
    axis.set_yticks(range(len(names)), [measurements.title(name) for name in names], color=INK)
    axis.tick_params(axis="y", labelsize=settings.font_points)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")
    axis.spines["left"].set_visible(False)
    value_axis(axis, final, measurements, metric, vertical=False)
    axis.set_xlabel(f"{measurements.metrics[metric].title} · ○ before · ● after fine-tuning", color=MUTED)


def steps_axis(axis: Axes) -> None:
    """The horizontal axis of what is followed over fine-tuning."""
    axis.set_xlabel("fine-tuning steps (0 = before)")
    axis.grid(visible=False, axis="x")
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.set_xlim(left=0)


def value_axis(axis: Axes, table: pd.DataFrame, measurements: Measurements, metric: str, *, vertical: bool) -> None:
    """Equal limits in every panel: from 0 (or the lowest interval) to just above the highest interval."""
    rows = table[table["metric"] == metric]
    low = min(0.0, float(rows[["low", "mean"]].min().min()))
    high = max(0.0, float(rows[["high", "mean"]].max().max())) * _HEADROOM
    if measurements.metrics[metric].kind == "rate":
        high = min(max(high, 0.05), 1.02)
        drawing.percent_ticks(axis.yaxis if vertical else axis.xaxis)
    pad = -0.02 * (high - low)
    (axis.set_ylim if vertical else axis.set_xlim)(low + pad, high)


def _described(table: pd.DataFrame, measurements: Measurements, metric: str, attack: str) -> str:
    """The numbers of a panel in words, for its alternative text."""
    parts = []
    for model in measurements.models:
        before = select(table, metric=metric, model=model)
        after = select(table, metric=metric, model=model, attack=attack)
        if not before.empty and not after.empty:
            parts.append(
                f"{measurements.title(model)}: {before['mean'].iloc[0]:.3f} before, {after['mean'].iloc[-1]:.3f} after"
            )
    return "; ".join(parts) + "."
