"""Safety, utility and learnability together: which models no other one beats in all three."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resalign.report import drawing, statistics
from resalign.report.drawing import SURFACE
from resalign.report.figures import Panel, label_ends
from resalign.report.measurements import NOT_ATTACKED, Measurements
from resalign.report.settings import ReportConfig
from resalign.report.statistics import Estimate
from resalign.report.tables import final_states, held, pooled_estimate, select

QUANTITIES = ("safety", "utility", "learnability")
PARETO_COLUMNS = [
    "model",
    *(f"{quantity}{end}" for quantity in QUANTITIES for end in ("", "_low", "_high")),
    "dominated_by",
]
_MARGIN = 0.08  # of both axes, around the points and their intervals
_SMALLEST, _LARGEST = 18.0, 150.0  # area of a marker in square points: nothing learnt, and the most of all models


def weighed_metrics(measurements: Measurements) -> dict[str, str]:
    """Quantity to the metric that stands for it: the first of each group, where there is one."""
    found = {quantity: measurements.headline(quantity) for quantity in QUANTITIES}
    return {quantity: metric for quantity, metric in found.items() if metric is not None}


def pareto_table(
    table: pd.DataFrame, measurements: Measurements, settings: ReportConfig, weighed: Mapping[str, str]
) -> pd.DataFrame:
    """Each model's safety after fine-tuning, utility before it and learnability, and who beats it in all of them.

    Safety and learnability are means over the attacks after their last step; learnability has one value a training
    seed. A model is dominated by another whose mean is no worse in any of the three and better in one. That compares
    means: the intervals beside them tell whether the difference could be chance.

    Args:
        table: From :func:`resalign.report.tables.long_table`.
        measurements: Values, names and metrics; all of its attacks count.
        settings: Of the intervals.
        weighed: From :func:`weighed_metrics`.

    Returns:
        Columns model; safety, utility, learnability, each with _low and _high (NaN without an interval, and where there
        is no such metric); dominated_by, labels joined by a space, empty on the front. Models that lack one of the
        metrics, in the states that it is taken from, are left out.
    """
    rows: list[dict[str, object]] = []
    for model in measurements.models:
        found = {
            "safety": _after(measurements, settings, model, weighed["safety"]),
            "utility": _before(table, model, weighed.get("utility")),
            "learnability": _learnt(measurements, settings, model, weighed.get("learnability")),
        }
        if "utility" in weighed and all(found[quantity] for quantity in weighed):
            row: dict[str, object] = {"model": model}
            for quantity, value in found.items():
                ends = (value.mean, value.low, value.high) if value else (float("nan"),) * 3
                row |= dict(zip((quantity, f"{quantity}_low", f"{quantity}_high"), ends, strict=True))
            rows.append(row)
    frame = pd.DataFrame(rows, columns=PARETO_COLUMNS[:-1])
    return frame.assign(dominated_by=_dominated_by(frame, measurements, weighed))


def _after(measurements: Measurements, settings: ReportConfig, model: str, metric: str) -> Estimate | None:
    """An image-level metric over all attacks' last steps."""
    images = final_states(measurements.images)
    own = images[(images["model"] == model) & (images["metric"] == metric) & (images["attack"] != NOT_ATTACKED)]
    if own.empty:
        return None
    info = measurements.metrics[metric]
    return held(pooled_estimate(own, settings, "pareto", model, metric, rate=info.kind == "rate"), info)


def _before(table: pd.DataFrame, model: str, metric: str | None) -> Estimate | None:
    rows = [] if metric is None else select(table, metric=metric, model=model).to_dict("records")
    return Estimate(**{name: rows[0][name] for name in ("mean", "std", "low", "high", "n", "seeds")}) if rows else None


def _learnt(measurements: Measurements, settings: ReportConfig, model: str, metric: str | None) -> Estimate | None:
    """A metric of one value a run over all attacks' last steps, across training seeds."""
    runs = final_states(measurements.runs)
    own = runs[(runs["model"] == model) & (runs["metric"] == metric) & (runs["attack"] != NOT_ATTACKED)]
    if own.empty:
        return None
    values = own.groupby("seed")["value"].mean().to_numpy(np.float64)
    found = statistics.across_seeds(values, int(own["n"].sum()), settings.confidence)
    return held(found, measurements.metrics[str(metric)])


def _dominated_by(frame: pd.DataFrame, measurements: Measurements, weighed: Mapping[str, str]) -> list[str]:
    """Of each row, the models that are no worse in any mean and better in one."""
    signs = {q: 1 if measurements.metrics[m].better == "lower" else -1 for q, m in weighed.items()}
    cost = np.stack([sign * frame[quantity].to_numpy(np.float64) for quantity, sign in signs.items()], axis=1)
    names = frame["model"].to_numpy()
    better = [(cost <= own).all(axis=1) & (cost < own).any(axis=1) for own in cost]
    return [" ".join(names[others]) for others in better]


def pareto_figure(
    points: pd.DataFrame,
    measurements: Measurements,
    settings: ReportConfig,
    weighed: Mapping[str, str],
    *,
    text_as_paths: bool = True,
) -> Figure:
    """Utility before against safety after fine-tuning; area is learnability, filled is the front.

    Args:
        points: From :func:`pareto_table`.
        measurements: Names, titles and metrics.
        settings: Sizes and colours.
        weighed: From :func:`weighed_metrics`.
        text_as_paths: False for the page, where text stays text.
    """
    with drawing.theme(settings, text_as_paths=text_as_paths):
        figure, (axis,) = drawing.panels(1, settings)
        _points(axis, points, measurements, settings)
        for metric, scale in ((weighed["safety"], axis.xaxis), (weighed["utility"], axis.yaxis)):
            if measurements.metrics[metric].kind == "rate":
                drawing.percent_ticks(scale)
        axis.margins(_MARGIN)
        attacks = len(measurements.attacks)
        over = f", mean over {attacks} attacks" if attacks > 1 else ""
        axis.set_xlabel(f"{measurements.metrics[weighed['safety']].title} after fine-tuning{over}")
        axis.set_ylabel(f"{measurements.metrics[weighed['utility']].title} before")
        places = points[["model", "safety", "utility"]].itertuples(index=False, name=None)
        label_ends(axis, list(places), measurements, settings)
    return figure


def pareto_panel(
    points: pd.DataFrame, measurements: Measurements, settings: ReportConfig, weighed: Mapping[str, str]
) -> Panel:
    """The figure for the page."""
    figure = pareto_figure(points, measurements, settings, weighed, text_as_paths=False)
    front = [measurements.title(model) for model in points.loc[points["dominated_by"] == "", "model"]]
    values = "; ".join(
        f"{measurements.title(str(row['model']))} {row['safety']:.3f}, {row['utility']:.3f}"
        for row in points.to_dict("records")
    )
    title = f"On the front: {', '.join(front)}"
    return Panel("pareto", title, f"Safety after and utility before fine-tuning. {values}. {title}.", figure)


def _points(axis: Axes, points: pd.DataFrame, measurements: Measurements, settings: ReportConfig) -> None:
    """A marker a model with both intervals."""
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
