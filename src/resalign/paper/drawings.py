"""Figures the page does not have: a metric over variants, over thresholds, and losses along directions."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resalign.report import drawing
from resalign.report.drawing import SURFACE
from resalign.report.figures import BAND_OPACITY, TITLE_CHARACTERS, label_ends, value_axis
from resalign.report.measurements import NOT_ATTACKED, Measurements
from resalign.report.settings import ReportConfig


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
    groups = [
        (series, attack, metric)
        for metric in metrics
        for (series, attack) in frame[["series", "attack"]].drop_duplicates().itertuples(index=False, name=None)
        if len(_chosen(frame, series, attack, metric))
    ]
    with drawing.theme(settings):
        figure, axes = drawing.panels(len(groups), settings)
        for axis, (series, attack, metric) in zip(axes, groups, strict=True):
            own = _chosen(frame, series, attack, metric)
            variants = list(dict.fromkeys(own["variant"]))
            places = {variant: float(place) for place, variant in enumerate(variants)}
            _lines(axis, own.assign(x=own["variant"].map(places)), measurements, settings)
            axis.set_xticks(range(len(variants)), variants)
            value_axis(axis, frame, measurements, metric, vertical=True)
            label_ends(axis, _ends(own.assign(x=own["variant"].map(places)), measurements), measurements, settings)
            after = "before fine-tuning" if attack == NOT_ATTACKED else f"after {measurements.target(attack)}"
            axis.set_title(textwrap.fill(f"{measurements.metrics[metric].title} {after}", TITLE_CHARACTERS))
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


def slices_figure(frame: pd.DataFrame, measurements: Measurements, settings: ReportConfig, caption: str) -> Figure:
    """A loss along directions from a model's weights: one panel a quantity and direction, one line a model.

    Args:
        frame: Columns model, direction, quantity, position, mean, low, high.
        measurements: Names.
        settings: Sizes and colours.
        caption: What the bands are; stands below the panels.
    """
    groups = list(frame[["quantity", "direction"]].drop_duplicates().itertuples(index=False, name=None))
    with drawing.theme(settings):
        figure, axes = drawing.panels(len(groups), settings)
        for axis, (quantity, direction) in zip(axes, groups, strict=True):
            own = frame[(frame["quantity"] == quantity) & (frame["direction"] == direction)]
            own = own.sort_values("position", kind="stable").assign(x=lambda f: f["position"])
            _lines(axis, own, measurements, settings)
            label_ends(axis, _ends(own, measurements), measurements, settings)
            axis.set_title(textwrap.fill(f"{quantity}, {direction}".replace("_", " "), TITLE_CHARACTERS))
            axis.set_xlabel("distance from the model's weights")
        # One panel is narrower than the sentence.
        shown = min(len(groups), settings.panel_columns)
        figure.supxlabel(textwrap.fill(caption, TITLE_CHARACTERS * shown), fontsize="small")
    return figure


def _chosen(frame: pd.DataFrame, series: str, attack: str, metric: str) -> pd.DataFrame:
    return frame[(frame["series"] == series) & (frame["attack"] == attack) & (frame["metric"] == metric)]


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
        axis.plot(
            line["x"],
            line["mean"],
            color=style.colour,
            linestyle=style.dash,
            marker=style.marker,
            ms=4.0,
            mec=SURFACE,
            mew=0.5,
        )


def _ends(own: pd.DataFrame, measurements: Measurements) -> list[tuple[str, float, float]]:
    """Each model's last point."""
    lines = [(model, own[own["model"] == model]) for model in measurements.models]
    return [(m, float(line["x"].iloc[-1]), float(line["mean"].iloc[-1])) for m, line in lines if len(line)]
