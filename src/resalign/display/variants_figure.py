"""A metric over the values of a sweep or the variants of an ablation."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resalign.analysis.measurements import Measurements, Sweep
from resalign.config.report import ReportConfig
from resalign.display import drawing
from resalign.display.drawing import Style
from resalign.display.panels import Panel, label_ends, value_axis

_DODGE = 0.36  # of the distance between two values, over which the models of one value are spread
_VALUE_INCHES = 0.62  # of a value on the horizontal axis, where many need more than a panel's width
_LABEL_INCHES = 1.6  # beside the axes: numbers at the left, models' names at the right
_VALUE_CHARACTERS = 11  # of a line of a value's name


def sweep_figure(
    rows: pd.DataFrame,
    measurements: Measurements,
    settings: ReportConfig,
    sweep: Sweep,
    *,
    text_as_paths: bool = True,
    styles: Mapping[str, Style] | None = None,
) -> Figure:
    """The sweep's first metric at each value with its interval, one marker a model; learnability in a panel below.

    Args:
        rows: From :func:`resalign.analysis.sweeps.sweep_table`.
        measurements: Names, titles and metrics.
        settings: Sizes and colours.
        sweep: Values in order.
        text_as_paths: False for the page, where text stays text.
        styles: Where ``measurements`` have lines for models: how each is drawn.
    """
    learnability = measurements.headline("learnability")
    wanted = dict.fromkeys([measurements.shown_metrics(sweep)[0], learnability])
    metrics = [metric for metric in wanted if metric and (rows["metric"] == metric).any()]
    width = max(settings.panel_width_inches, _LABEL_INCHES + _VALUE_INCHES * len(sweep.attacks))
    with drawing.theme(settings, text_as_paths=text_as_paths):
        figure = Figure(figsize=(width, settings.panel_height_inches * len(metrics)), layout="constrained")
        axes = figure.subplots(len(metrics), 1, squeeze=False, sharex=True)[:, 0]
        for axis, metric in zip(axes, metrics, strict=True):
            values = list(sweep.attacks)
            value_panel(axis, rows, measurements, settings, values, metric, scaled_to=rows, styles=styles)
        axes[-1].set_xlabel(sweep.axis)
    return figure


def sweep_panel(
    name: str, rows: pd.DataFrame, measurements: Measurements, settings: ReportConfig, sweep: Sweep
) -> Panel:
    """The figure for the page; ``name`` is unique in it."""
    figure = sweep_figure(rows, measurements, settings, sweep, text_as_paths=False)
    metric = measurements.shown_metrics(sweep)[0]
    parts = []
    for model, own in rows[rows["metric"] == metric].groupby("model", sort=False):
        values = ", ".join(f"{row['value']} {row['mean']:.3f}" for row in own.to_dict("records"))
        parts.append(f"{measurements.title(str(model))}: {values}")
    label = f"{measurements.metrics[metric].title} by {sweep.axis}. {'; '.join(parts)}."
    return Panel(f"sweep-{name}", f"{measurements.metrics[metric].title} by {sweep.axis}", label, figure)


def value_panel(
    axis: Axes,
    rows: pd.DataFrame,
    measurements: Measurements,
    settings: ReportConfig,
    values: list[str],
    metric: str,
    *,
    scaled_to: pd.DataFrame,
    styles: Mapping[str, Style] | None = None,
) -> None:
    """One metric: markers with intervals, the models of a value side by side, joined from value to value.

    Args:
        axis: To draw on.
        rows: Columns value, model, metric, mean, low, high; one row a value and model of the metric.
        measurements: Names, titles and metrics.
        settings: Colours.
        values: In order.
        metric: What is drawn.
        scaled_to: Whose values of the metric set the axis's limits.
        styles: How each model is drawn; None for as everywhere.
    """
    styles = styles or drawing.model_styles(measurements, settings)
    shown = rows[rows["metric"] == metric]
    models = [model for model in measurements.models if (shown["model"] == model).any()]
    ends: list[tuple[str, float, float]] = []
    for place, model in enumerate(models):
        own = shown[shown["model"] == model]
        shift = _DODGE * ((place + 0.5) / len(models) - 0.5)
        x = own["value"].map(values.index) + shift
        style = styles[model]
        axis.vlines(x, own["low"], own["high"], color=style.colour, alpha=0.45, linewidth=2.4)
        axis.plot(x, own["mean"], color=style.colour, linestyle=style.dash, linewidth=0.9, zorder=3)
        axis.plot(x, own["mean"], linestyle="", zorder=4, **style.markers)
        ends.append((model, float(x.iloc[-1]), float(own["mean"].iloc[-1])))
    axis.set_xticks(range(len(values)), [textwrap.fill(value, _VALUE_CHARACTERS) for value in values])
    axis.set_xlim(-0.5, len(values) - 0.5)
    axis.grid(visible=False, axis="x")
    value_axis(axis, scaled_to, measurements, metric, vertical=True)
    axis.set_ylabel(measurements.metrics[metric].title)
    label_ends(axis, ends, measurements, settings, styles)
