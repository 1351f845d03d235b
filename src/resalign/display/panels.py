"""The plots of the results: a metric against fine-tuning steps, before against after, and over variants."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from resalign.analysis.frames import final_states, select, targets
from resalign.analysis.measurements import NOT_ATTACKED, Measurements
from resalign.config.report import ReportConfig
from resalign.display import drawing
from resalign.display.drawing import INK, MUTED, SURFACE, Panel, Style
from resalign.display.layout import target_title

BAND_OPACITY, EDGE_OPACITY = 0.10, 0.45
_HEADROOM = 1.06  # of the highest interval, above the axis
_LABEL_GAP = 1.15  # of the type size, between two labels
_ROW_INCHES = 0.5  # of a model's row in the before-and-after figure
_ROW_OFFSET = 0.16  # of a row, between the two states of a model
_DODGE = 0.36  # of the distance between two variants, over which the models of one variant are spread
_VALUE_INCHES = 0.62  # of a variant on the horizontal axis, where many need more than a panel's width
_LABEL_INCHES = 1.6  # beside the axes: numbers at the left, models' names at the right
_VALUE_CHARACTERS = 11  # of a line of a variant's name


def followed(table: pd.DataFrame, measurements: Measurements) -> list[str]:
    """Safety metrics that are drawn over fine-tuning: the first one, and others measured at several steps."""
    after = table[table["attack"] != NOT_ATTACKED]
    metrics = []
    for metric, info in measurements.metrics.items():
        times = after[after["metric"] == metric].groupby("attack")["steps"].nunique()
        enough = 1 if metric == measurements.safety_metric else 2
        if info.group == "safety" and len(times) and times.max() >= enough:
            metrics.append(metric)
    return metrics


def steps_panels(table: pd.DataFrame, measurements: Measurements, settings: ReportConfig, metric: str) -> list[Panel]:
    """A metric against fine-tuning steps, one panel a target, one line a model, its interval as a band; 0 is before."""
    panels = []
    for attack in targets(table[table["metric"] == metric]):
        info, over = measurements.metrics[metric], panel_title(measurements, attack).lower()
        label = f"{info.title} against steps of {over}. {_described(table, measurements, metric, attack)}"
        draw = partial(_draw_steps, table, measurements, settings, metric, attack)
        panels.append(Panel(f"{info.title}: {over}", label, draw))
    return panels


def before_after_panels(
    table: pd.DataFrame, measurements: Measurements, settings: ReportConfig, metric: str
) -> list[Panel]:
    """A metric before and after fine-tuning with intervals, one panel a target, one row a model."""
    final = final_states(table)
    height = 1.1 + _ROW_INCHES * final.loc[final["metric"] == metric, "model"].nunique()  # and key, title, axis
    panels = []
    for attack in targets(final):
        title = f"After {target_title(measurements, final, attack)}"
        numbers = _described(final, measurements, metric, attack)
        label = f"{measurements.metrics[metric].title} before and {title.lower()}. {numbers}"
        draw = partial(_draw_before_after, final, measurements, settings, metric, attack)
        panels.append(Panel(title, label, draw, height=height))
    return panels


def variants_panel(
    rows: pd.DataFrame,
    measurements: Measurements,
    settings: ReportConfig,
    metric: str,
    *,
    title: str,
    axis_title: str,
    scaled_to: pd.DataFrame,
) -> Panel:
    """One metric over variants in the order given: markers with intervals, a line for each model.

    Args:
        rows: Columns variant, model, metric, mean, low, high; one row a variant and model of the metric.
        measurements: Names, titles and metrics.
        settings: Sizes and colours.
        metric: The metric.
        title: Of the panel.
        axis_title: What varies.
        scaled_to: Rows whose values of the metric set the axis's limits.
    """
    points = rows[rows["metric"] == metric]
    parts = []
    for model, of_model in points.groupby("model", sort=False):
        values = ", ".join(f"{row['variant']} {row['mean']:.3f}" for row in of_model.to_dict("records"))
        parts.append(f"{measurements.title(str(model))}: {values}")
    width = _LABEL_INCHES + _VALUE_INCHES * points["variant"].nunique()
    draw = partial(_draw_variants, points, measurements, settings, metric, axis_title, scaled_to)
    return Panel(title, f"{title}, by {axis_title}. {'; '.join(parts)}.", draw, width=width)


def panel_title(measurements: Measurements, attack: str) -> str:
    """Such as ``Fine-tuning on pages``."""
    return f"Fine-tuning on {measurements.target(attack)}"


def draw_line(
    axis: Axes, line: pd.DataFrame, x: str, style: Style, *, band: bool = True, edges: bool = False
) -> tuple[float, float]:
    """Draws a model's means over a column with markers, and its intervals as a band.

    Args:
        axis: The axes.
        line: Columns mean, low, high and ``x``.
        x: The column on the horizontal axis.
        style: The model's.
        band: Whether the intervals are drawn.
        edges: Whether the band has edges.

    Returns:
        The last point, for the model's name.
    """
    known = line.dropna(subset=["low", "high"])
    if band:
        axis.fill_between(known[x], known["low"], known["high"], color=style.colour, alpha=BAND_OPACITY, linewidth=0)
        for end in ("low", "high") if edges else ():
            axis.plot(known[x], known[end], color=style.colour, alpha=EDGE_OPACITY, linewidth=0.7)
    axis.plot(line[x], line["mean"], linestyle=style.dash, clip_on=False, zorder=3, **style.markers)
    return float(line[x].iloc[-1]), float(line["mean"].iloc[-1])


def _draw_steps(
    table: pd.DataFrame,
    measurements: Measurements,
    settings: ReportConfig,
    metric: str,
    attack: str,
    axis: Axes,
) -> None:
    styles = drawing.model_styles(measurements, settings)
    bands = len(measurements.models) <= settings.band_models
    ends: list[tuple[str, float, float]] = []
    for model in measurements.models:
        before = select(table, metric=metric, model=model)
        after = select(table, metric=metric, model=model, attack=attack)
        if not after.empty:
            line = pd.concat([part for part in (before, after) if not part.empty])
            ends.append((model, *draw_line(axis, line, "steps", styles[model], band=bands, edges=True)))
    value_axis(axis, table, measurements, metric, vertical=True)
    steps_axis(axis)
    axis.set_ylabel(measurements.metrics[metric].title)
    label_ends(axis, ends, measurements, settings)


def _draw_before_after(
    final: pd.DataFrame,
    measurements: Measurements,
    settings: ReportConfig,
    metric: str,
    attack: str,
    axis: Axes,
) -> None:
    styles = drawing.model_styles(measurements, settings)
    names = [model for model in measurements.models if not select(final, metric=metric, model=model).empty]
    for row, model in enumerate(names):
        before = select(final, metric=metric, model=model).iloc[0]
        attacked = select(final, metric=metric, model=model, attack=attack)
        colour = styles[model].colour
        states = [(before, row if attacked.empty else row - _ROW_OFFSET, SURFACE)]
        if not attacked.empty:
            after = attacked.iloc[0]
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


def _draw_variants(
    points: pd.DataFrame,
    measurements: Measurements,
    settings: ReportConfig,
    metric: str,
    axis_title: str,
    scaled_to: pd.DataFrame,
    axis: Axes,
) -> None:
    styles = drawing.model_styles(measurements, settings)
    variants = list(dict.fromkeys(points["variant"]))
    models = [model for model in measurements.models if (points["model"] == model).any()]
    ends: list[tuple[str, float, float]] = []
    for place, model in enumerate(models):
        of_model, style = points[points["model"] == model], styles[model]
        x = of_model["variant"].map(variants.index) + _DODGE * ((place + 0.5) / len(models) - 0.5)
        axis.vlines(x, of_model["low"], of_model["high"], color=style.colour, alpha=0.45, linewidth=2.4)
        axis.plot(x, of_model["mean"], color=style.colour, linestyle=style.dash, linewidth=0.9, zorder=3)
        axis.plot(x, of_model["mean"], linestyle="", zorder=4, **style.markers)
        ends.append((model, float(x.iloc[-1]), float(of_model["mean"].iloc[-1])))
    axis.set_xticks(range(len(variants)), [textwrap.fill(variant, _VALUE_CHARACTERS) for variant in variants])
    axis.set_xlim(-0.5, len(variants) - 0.5)
    axis.grid(visible=False, axis="x")
    value_axis(axis, scaled_to, measurements, metric, vertical=True)
    axis.set_xlabel(axis_title)
    axis.set_ylabel(measurements.metrics[metric].title)
    label_ends(axis, ends, measurements, settings)


def label_ends(
    axis: Axes,
    ends: Sequence[tuple[str, float, float]],
    measurements: Measurements,
    settings: ReportConfig,
) -> None:
    """Model names at the right of their lines, apart from one another, with a thread to the line's end."""
    low, high = axis.get_ylim()
    inches = settings.panel_height_inches * 0.75  # of which the axes take about three quarters
    gap = _LABEL_GAP * settings.font_points / 72 / inches * (high - low)
    limits = axis.get_xlim()
    styles = drawing.model_styles(measurements, settings)
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
                "linewidth": 0.6,
                "linestyle": ":",
                "alpha": 0.6,
                "shrinkA": 1,
                "shrinkB": 3,
                "relpos": (0.0, 0.5),
            },
        )
    axis.set_xlim(limits)


def steps_axis(axis: Axes) -> None:
    """The horizontal axis of fine-tuning steps."""
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
    """The numbers of a panel as text, for its alternative text."""
    parts = []
    for model in measurements.models:
        before = select(table, metric=metric, model=model)
        after = select(table, metric=metric, model=model, attack=attack)
        if not before.empty and not after.empty:
            parts.append(
                f"{measurements.title(model)}: {before['mean'].iloc[0]:.3f} before, {after['mean'].iloc[-1]:.3f} after"
            )
    return "; ".join(parts) + "."
