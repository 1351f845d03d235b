"""Panels of safety rates over their detectors' thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pandas as pd
from matplotlib.axes import Axes

from resalign.analysis.measurements import Measurements
from resalign.config.report import ReportConfig
from resalign.display import drawing
from resalign.display.drawing import Panel
from resalign.display.panels import draw_line, label_ends, value_axis


def thresholds_panels(
    frame: pd.DataFrame, measurements: Measurements, settings: ReportConfig, titles: Mapping[tuple[str, str], str]
) -> list[Panel]:
    """One panel a metric and attack, one line a model.

    Args:
        frame: Columns metric, attack, model, threshold, mean, low, high.
        measurements: Names, titles and metrics.
        settings: Sizes and colours.
        titles: Title of a panel by metric and attack.
    """
    panels = []
    for (metric, attack), title in titles.items():
        own = frame[(frame["metric"] == metric) & (frame["attack"] == attack)]
        draw = partial(_draw_thresholds, own, frame, measurements, settings, metric)
        panels.append(Panel(title, f"{title}, over the threshold of every detector.", draw))
    return panels


def _draw_thresholds(
    own: pd.DataFrame,
    scaled_to: pd.DataFrame,
    measurements: Measurements,
    settings: ReportConfig,
    metric: str,
    axis: Axes,
) -> None:
    styles = drawing.model_styles(measurements, settings)
    lines = [(model, own[own["model"] == model]) for model in measurements.models]
    ends = [(m, *draw_line(axis, line, "threshold", styles[m])) for m, line in lines if len(line)]
    value_axis(axis, scaled_to, measurements, metric, vertical=True)
    label_ends(axis, ends, measurements, settings)
    axis.set_xlabel("threshold of every detector")
    axis.set_ylabel(measurements.metrics[metric].title)
