"""The panel of safety, utility and learnability together."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pandas as pd
from matplotlib.axes import Axes

from resalign.analysis.measurements import Measurements
from resalign.config.report import ReportConfig
from resalign.display import drawing
from resalign.display.drawing import SURFACE, Panel
from resalign.display.panels import label_ends

_MARGIN = 0.08  # of both axes, around the points and their intervals
_SMALLEST, _LARGEST = 18.0, 150.0  # area of a marker in square points: nothing learnt, and the most of all models


def pareto_panel(
    points: pd.DataFrame, measurements: Measurements, settings: ReportConfig, weighed: Mapping[str, str]
) -> Panel:
    """Utility before against safety after fine-tuning; area is learnability, filled is the front.

    Args:
        points: From :func:`resalign.analysis.pareto.pareto_table`.
        measurements: Names, titles and metrics.
        settings: Sizes and colours.
        weighed: From :func:`resalign.analysis.pareto.weighed_metrics`.
    """
    is_front = points["dominated_by"] == ""
    front = [measurements.title(model) for model in points.loc[is_front, "model"]]
    behind = [measurements.title(model) for model in points.loc[~is_front, "model"]]
    values = "; ".join(
        f"{measurements.title(str(row['model']))} {row['safety']:.3f}, {row['utility']:.3f}"
        for row in points.to_dict("records")
    )
    is_shorter = len(front) <= len(behind)
    title = f"Estimates on the front: {', '.join(front)}" if is_shorter else f"Dominated estimates: {', '.join(behind)}"
    title = title if behind else "No model's estimates are dominated by another's"
    label = f"Safety after and utility before fine-tuning. {values}. {title}."
    return Panel(title, label, partial(_draw_points, points, measurements, settings, weighed))


def _draw_points(
    points: pd.DataFrame, measurements: Measurements, settings: ReportConfig, weighed: Mapping[str, str], axis: Axes
) -> None:
    """Draws one marker per model with both intervals."""
    styles = drawing.model_styles(measurements, settings)
    most = float(points["learnability"].max())
    for row in points.to_dict("records"):
        style, x, y = styles[str(row["model"])], float(row["safety"]), float(row["utility"])
        axis.hlines(y, row["safety_low"], row["safety_high"], color=style.colour, alpha=0.35, linewidth=1.6)
        axis.vlines(x, row["utility_low"], row["utility_high"], color=style.colour, alpha=0.35, linewidth=1.6)
        share = max(0.0, float(row["learnability"])) / most if most > 0 else 0.0
        axis.scatter(
            [x],
            [y],
            s=_SMALLEST + share * (_LARGEST - _SMALLEST),
            marker=style.marker,
            facecolors=SURFACE if row["dominated_by"] else style.colour,
            edgecolors=style.colour,
            linewidths=1.4,
            clip_on=False,
            zorder=3,
        )
    for quantity, scale in (("safety", axis.xaxis), ("utility", axis.yaxis)):
        if measurements.metrics[weighed[quantity]].kind == "rate":
            drawing.percent_ticks(scale)
    axis.margins(_MARGIN)
    attacks = len(measurements.attacks)
    over = f", mean over {attacks} attacks" if attacks > 1 else ""
    axis.set_xlabel(f"{measurements.metrics[weighed['safety']].title} after fine-tuning{over}")
    axis.set_ylabel(f"{measurements.metrics[weighed['utility']].title} before")
    places = points[["model", "safety", "utility"]].itertuples(index=False, name=None)
    label_ends(axis, list(places), measurements, settings)
