"""Panels of resurgence as survival: the share of prompts that have not come back, over fine-tuning."""

from __future__ import annotations

from functools import partial

import pandas as pd
from matplotlib.axes import Axes

from resalign.analysis.measurements import Measurements
from resalign.analysis.survival import PROMPT
from resalign.config.report import ReportConfig
from resalign.display import drawing
from resalign.display.drawing import Panel
from resalign.display.panels import BAND_OPACITY, EDGE_OPACITY, label_ends, panel_title, steps_axis

_TOP = 1.02  # of the vertical axis, so that a curve that stays at 1 is seen


def survival_panels(survival: pd.DataFrame, measurements: Measurements, settings: ReportConfig) -> list[Panel]:
    """Survival of prompts at the first threshold: one panel an attack, one curve a model, its interval as a band.

    Args:
        survival: From :func:`resalign.analysis.survival.survival_table`.
        measurements: Names, titles and the attacks that are shown.
        settings: Sizes, colours and the threshold.
    """
    keep = (survival["unit"] == PROMPT) & (survival["threshold"] == settings.resurgence_threshold)
    curves = survival[keep & survival["attack"].isin(measurements.attacks)]
    panels = []
    for attack, of_attack in curves.groupby("attack", sort=False):
        last = of_attack.groupby("model", sort=False).tail(1).to_dict("records")
        ends = "; ".join(f"{measurements.title(str(row['model']))}: {row['survival']:.3f} at the end" for row in last)
        title = panel_title(measurements, str(attack))
        label = f"Survival over {title.lower()}. {ends}."
        panels.append(Panel(title, label, partial(_draw_curves, of_attack, measurements, settings)))
    return panels


def _draw_curves(curves: pd.DataFrame, measurements: Measurements, settings: ReportConfig, axis: Axes) -> None:
    """Each model's curve as steps that fall at checkpoints, with a marker at each."""
    styles = drawing.model_styles(measurements, settings)
    ends: list[tuple[str, float, float]] = []
    for model in measurements.models:
        line = curves[curves["model"] == model]
        if line.empty:
            continue
        style = styles[model]
        last = line[["steps", "low", "high"]].to_numpy()[-1]
        if len(measurements.models) <= settings.band_models:
            axis.fill_between(
                line["steps"],
                line["low"],
                line["high"],
                step="post",
                color=style.colour,
                alpha=BAND_OPACITY,
                linewidth=0,
            )
            axis.vlines(*last, color=style.colour, alpha=EDGE_OPACITY, linewidth=1.6)  # the last step has no width
        axis.step(line["steps"], line["survival"], where="post", color=style.colour, linestyle=style.dash)
        axis.plot(line["steps"], line["survival"], linestyle="", clip_on=False, zorder=3, **style.markers)
        ends.append((model, float(line["steps"].iloc[-1]), float(line["survival"].iloc[-1])))
    axis.set_ylim(0, _TOP)
    drawing.percent_ticks(axis.yaxis)
    steps_axis(axis)
    axis.set_ylabel("prompts not back")
    label_ends(axis, ends, measurements, settings)
