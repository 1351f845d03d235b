"""The figure of resurgence as survival: the share of prompts that have not come back, over fine-tuning."""

from __future__ import annotations

import textwrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resalign.analysis.measurements import Measurements
from resalign.analysis.survival import PROMPT
from resalign.config.report import ReportConfig
from resalign.display import drawing
from resalign.display.panels import (
    BAND_OPACITY,
    EDGE_OPACITY,
    TITLE_CHARACTERS,
    Panel,
    label_ends,
    panel_title,
    steps_axis,
)

_TOP = 1.02  # of the vertical axis, so that a curve that stays at 1 is seen


def drawn_curves(survival: pd.DataFrame, measurements: Measurements, settings: ReportConfig) -> pd.DataFrame:
    """The rows that are drawn: prompts, the first threshold, the attacks of these measurements."""
    keep = (survival["unit"] == PROMPT) & (survival["threshold"] == settings.resurgence_threshold)
    return survival[keep & survival["attack"].isin(measurements.attacks)]


def survival_figure(curves: pd.DataFrame, measurements: Measurements, settings: ReportConfig) -> Figure:
    """Survival against fine-tuning steps, one panel an attack, one curve a model, its interval as a band.

    Args:
        curves: From :func:`drawn_curves`.
        measurements: Names, titles and colours.
        settings: Sizes and colours.
    """
    attacks = list(dict.fromkeys(curves["attack"]))
    with drawing.theme(settings):
        figure, axes = drawing.panels(len(attacks), settings)
        for axis, attack in zip(axes, attacks, strict=True):
            _panel(axis, curves[curves["attack"] == attack], measurements, settings)
            axis.set_title(textwrap.fill(panel_title(measurements, attack), TITLE_CHARACTERS))
    return figure


def survival_panels(curves: pd.DataFrame, measurements: Measurements, settings: ReportConfig) -> list[Panel]:
    """The panels of :func:`survival_figure`, each its own figure."""
    result: list[Panel] = []
    for attack, own in curves.groupby("attack", sort=False):
        with drawing.theme(settings, text_as_paths=False):
            figure, (axis,) = drawing.panels(1, settings)
            _panel(axis, own, measurements, settings)
        last = own.groupby("model", sort=False).tail(1).to_dict("records")
        ends = "; ".join(f"{measurements.title(str(row['model']))}: {row['survival']:.3f} at the end" for row in last)
        title = panel_title(measurements, str(attack))
        result.append(Panel(f"survival-{len(result)}", title, f"Survival over {title.lower()}. {ends}.", figure))
    return result


def _panel(axis: Axes, curves: pd.DataFrame, measurements: Measurements, settings: ReportConfig) -> None:
    """Each model's curve as steps that fall at checkpoints, with a marker at each."""
    styles = drawing.model_styles(measurements, settings)
    ends: list[tuple[str, float, float]] = []
    for model in measurements.models:
        own = curves[curves["model"] == model]
        if own.empty:
            continue
        style = styles[model]
        last = own[["steps", "low", "high"]].to_numpy()[-1]
        if len(measurements.models) <= settings.band_models:
            axis.fill_between(
                own["steps"], own["low"], own["high"], step="post", color=style.colour, alpha=BAND_OPACITY, linewidth=0
            )
            axis.vlines(*last, color=style.colour, alpha=EDGE_OPACITY, linewidth=1.6)  # the last step has no width
        axis.step(own["steps"], own["survival"], where="post", color=style.colour, linestyle=style.dash)
        axis.plot(own["steps"], own["survival"], linestyle="", clip_on=False, zorder=3, **style.markers)
        ends.append((model, float(own["steps"].iloc[-1]), float(own["survival"].iloc[-1])))
    axis.set_ylim(0, _TOP)
    drawing.percent_ticks(axis.yaxis)
    steps_axis(axis)
    axis.set_ylabel("prompts not back")
    label_ends(axis, ends, measurements, settings)
