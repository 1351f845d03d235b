"""Figures that the page does not have: metrics over variants of several series, and over thresholds."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resalign.analysis.measurements import Measurements
from resalign.config.report import ReportConfig
from resalign.display import drawing
from resalign.display.panels import BAND_OPACITY, TITLE_CHARACTERS, label_ends, value_axis
from resalign.display.variants_figure import value_panel
from resalign.display.variants_table import state_titles


def variants_figure(
    frame: pd.DataFrame,
    measurements: Measurements,
    settings: ReportConfig,
    metrics: Sequence[str],
    axes_titles: Mapping[str, str],
) -> Figure:
    """Metrics over variants in the order given: one panel a series, state and metric, one line a model.

    Args:
        frame: From ``Evidence.series``.
        measurements: Names.
        settings: Sizes and colours.
        metrics: What is drawn; those that a state has.
        axes_titles: What varies, by series.
    """
    shown = frame.assign(state=state_titles(frame, measurements), value=frame["variant"])
    groups = [
        (metric, str(series), str(state), own)
        for metric in metrics
        for (series, state), own in shown[shown["metric"] == metric].groupby(["series", "state"], sort=False)
    ]
    with drawing.theme(settings):
        figure, axes = drawing.panels(len(groups), settings)
        for axis, (metric, series, state, own) in zip(axes, groups, strict=True):
            variants = list(dict.fromkeys(own["variant"]))
            value_panel(axis, own, measurements, settings, variants, metric, scaled_to=shown)
            title = f"{measurements.metrics[metric].title} {state[0].lower()}{state[1:]}"
            axis.set_title(textwrap.fill(title, TITLE_CHARACTERS))
            axis.set_xlabel(axes_titles[series])
    return figure


def thresholds_figure(
    frame: pd.DataFrame, measurements: Measurements, settings: ReportConfig, titles: dict[tuple[str, str], str]
) -> Figure:
    """Safety rates over the detectors' threshold: one panel a metric and state, one line a model."""
    with drawing.theme(settings):
        figure, axes = drawing.panels(len(titles), settings)
        for axis, ((metric, attack), title) in zip(axes, titles.items(), strict=True):
            own = frame[(frame["metric"] == metric) & (frame["attack"] == attack)].assign(x=lambda f: f["threshold"])
            _lines(axis, own, measurements, settings)
            value_axis(axis, frame, measurements, metric, vertical=True)
            label_ends(axis, _ends(own, measurements), measurements, settings)
            axis.set_title(textwrap.fill(title, TITLE_CHARACTERS))
            axis.set_xlabel("threshold of every detector")
            axis.set_ylabel(measurements.metrics[metric].title)
    return figure


def _lines(axis: Axes, own: pd.DataFrame, measurements: Measurements, settings: ReportConfig) -> None:
    """Each model's line over ``x`` with its band."""
    styles = drawing.model_styles(measurements, settings)
    for model in measurements.models:
        line = own[own["model"] == model]
        if line.empty:
            continue
        style = styles[model]
        band = line.dropna(subset=["low", "high"])
        axis.fill_between(band["x"], band["low"], band["high"], color=style.colour, alpha=BAND_OPACITY, linewidth=0)
        axis.plot(line["x"], line["mean"], linestyle=style.dash, **style.markers)


def _ends(own: pd.DataFrame, measurements: Measurements) -> list[tuple[str, float, float]]:
    """Each model's last point."""
    lines = [(model, own[own["model"] == model]) for model in measurements.models]
    return [(m, float(line["x"].iloc[-1]), float(line["mean"].iloc[-1])) for m, line in lines if len(line)]
