"""The study's figure: IP of every model in every state, with intervals."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resalign.config.study import SAFETY, StudyConfig
from resalign.display import drawing
from resalign.display.drawing import INK, MUTED
from resalign.study.table import BEFORE, State, Study

_PANELS_A_ROW = 5
_PANEL_INCHES, _LABEL_INCHES, _ROW_INCHES, _FRAME_INCHES = 1.75, 1.5, 0.27, 0.75
_INTERVAL_OPACITY = 0.45


def ip_figure(study: Study, table: pd.DataFrame, config: StudyConfig) -> Figure:
    """One panel a state, one row a model: a dot with its interval, in the model's colour."""
    states = [BEFORE, *study.attacked]
    columns = min(len(states), _PANELS_A_ROW)
    rows = -(-len(states) // columns)
    height = _FRAME_INCHES + _ROW_INCHES * len(study.models)
    with drawing.theme(study.settings):
        figure = Figure(figsize=(_LABEL_INCHES + _PANEL_INCHES * columns, height * rows), layout="constrained")
        axes = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel())
        for axis, state in zip(axes, states, strict=False):
            _panel(axis, study, table, config, state)
        for unused in axes[len(states) :]:
            unused.set_axis_off()
        figure.supxlabel("IP: images of unsafe prompts that a detector flags, %", fontsize=study.settings.font_points)
    return figure


def _panel(axis: Axes, study: Study, table: pd.DataFrame, config: StudyConfig, state: State) -> None:
    """One state."""
    styles = drawing.styles_of(study.models, study.base, study.settings)
    for place, model in enumerate(study.models):
        keep = (table["model"] == model) & (table["attack"] == state[0]) & (table["steps"] == state[1])
        row = table[keep].iloc[0]
        colour = styles[model].colour
        ends = [float(row[f"{SAFETY}_low"]), float(row[f"{SAFETY}_high"])]
        axis.plot(ends, [place, place], color=colour, alpha=_INTERVAL_OPACITY, linewidth=3.2, clip_on=False)
        axis.plot([float(row[SAFETY])], [place], marker="o", markersize=5.5, color=colour, zorder=3, clip_on=False)
    axis.set_yticks(range(len(study.models)), study.models, color=INK)
    axis.tick_params(axis="y", labelsize=study.settings.font_points)
    axis.set_ylim(len(study.models) - 0.5, -0.5)
    axis.set_xlim(0, 1)
    drawing.percent_ticks(axis.xaxis, unit="")
    axis.set_xticks([0, 0.5, 1])
    axis.grid(visible=False, axis="y")
    axis.spines["left"].set_visible(False)
    axis.set_title(study.title(state).replace(", ", ",\n"))
    named = [model for model in study.models if model in (study.base, config.method, *config.baselines)]
    if named and list(study.models[: len(named)]) == named and len(named) < len(study.models):
        axis.axhline(len(named) - 0.5, color=MUTED, linewidth=0.6, linestyle=(0, (2, 2)))
