"""Training curves: one panel for each stage, task and quantity, one colour per model."""

from __future__ import annotations

from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from resalign.analysis.measurements import HISTORY_COLUMNS, Measurements, check_frame
from resalign.config.report import ReportConfig
from resalign.display import drawing
from resalign.display.drawing import INK, Panel, Style

_SEED_OPACITY = 0.3


def curve_panels(histories: pd.DataFrame, measurements: Measurements, settings: ReportConfig) -> list[Panel]:
    """The panels of all training curves.

    Args:
        histories: Columns stage, label, seed, step, quantity, value. A label is a model's name, followed by ``/`` and
            the task where there is one (``resalign/pages``); labels of one task share a panel, and a name that is no
            model's (the generator's own training) is drawn in the ink's colour. A task is an attack's label; those
            that the measurements lack are left out.
        measurements: Names, titles and colours.
        settings: ``curve_window`` smooths each curve by a centred rolling mean over that share of its records.

    Raises:
        ValueError: If a column is missing or a value is not finite.
    """
    check_frame(histories, "histories", HISTORY_COLUMNS)
    if histories.empty:
        return []
    names = histories["label"].str.partition("/")
    frame = histories.assign(name=names[0], task=names[2])
    frame = frame[frame["task"].isin({"", *measurements.attacks})]
    result: list[Panel] = []
    for (stage, task, quantity), group in frame.groupby(["stage", "task", "quantity"], sort=False):
        if group.groupby("label")["step"].nunique().max() == 1:  # a result, no curve
            continue
        where = f", {measurements.title(str(task))}" if task else ""
        title = f"{str(stage).capitalize()}{where}: {str(quantity).replace('_', ' ')}"
        draw = partial(_draw_curves, group, measurements, settings)
        result.append(Panel(title, f"Training curve. {title}, against step.", draw))
    return result


def _draw_curves(group: pd.DataFrame, measurements: Measurements, settings: ReportConfig, axis: Axes) -> None:
    """Draws single seeds faintly and the mean of the seeds strongly."""
    styles = drawing.model_styles(measurements, settings)
    order = [*measurements.models, *sorted(set(group["name"]) - set(measurements.models))]
    for name in (name for name in order if name in set(group["name"])):
        style = styles.get(name, Style(INK, "-", "o"))
        table = group[group["name"] == name].pivot_table(index="step", columns="seed", values="value").sort_index()
        window = max(1, round(settings.curve_window * len(table)))
        smooth = table.rolling(window, center=True, min_periods=1).mean()
        if smooth.shape[1] > 1:
            axis.plot(smooth.index, smooth, color=style.colour, alpha=_SEED_OPACITY, linewidth=0.7)
        axis.plot(
            smooth.index, smooth.mean(axis=1), color=style.colour, linestyle=style.dash, label=measurements.title(name)
        )
    axis.set_xlabel("step")
    axis.margins(x=0)
    axis.grid(visible=False, axis="x")
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.legend(frameon=False, fontsize=settings.font_points - 1, handlelength=1.6)
