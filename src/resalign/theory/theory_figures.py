"""Proposition 1 as figures: sharpness against what comes back, prediction against measurement, slices of the loss."""

from __future__ import annotations

import re

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resalign.analysis.measurements import Measurements
from resalign.config.report import ReportConfig
from resalign.display import drawing
from resalign.display.drawing import MUTED
from resalign.theory.landscape import CHANGE, ISOTROPIC, REAL

_FAINT = 0.35
_KINDS = {ISOTROPIC: "random directions of that length", REAL: "the fine-tunings themselves"}


def sharpness_figure(regained: pd.DataFrame, measurements: Measurements, settings: ReportConfig) -> Figure:
    """The rate that comes back against Tr(H) and ‖H‖_F²: one mark a model, seed and attack, bars one standard error."""
    styles = drawing.model_styles(measurements, settings)
    with drawing.theme(settings):
        figure, axes = drawing.panels(2, settings)
        for axis, (quantity, label) in zip(axes, (("trace", "Tr(H)"), ("frobenius_squared", "‖H‖_F²")), strict=True):
            for model, rows in regained.groupby("model", sort=False):
                style = styles[str(model)]
                axis.errorbar(
                    rows[quantity],
                    rows["regained"],
                    xerr=rows[f"{quantity}_standard_error"],
                    linestyle="none",
                    marker=style.marker,
                    markersize=5,
                    linewidth=1,
                    color=style.colour,
                    label=measurements.title(str(model)),
                )
            axis.set_xlabel(f"{label} of the harmful loss, before fine-tuning")
            axis.set_ylabel(f"regained {measurements.safety_metric}")
        axes[1].set_xscale("log")
        axes[0].legend(frameon=False)
    return figure


def displacement_figure(displacement: pd.DataFrame, measurements: Measurements, settings: ReportConfig) -> Figure:
    """Measured ΔL_harm against (σ²/2d)·Tr(H), each kind in a panel of its own scale; on the line both are equal."""
    styles = drawing.model_styles(measurements, settings)
    with drawing.theme(settings):
        figure, axes = drawing.panels(len(_KINDS), settings)
        for axis, (kind, title) in zip(axes, _KINDS.items(), strict=True):
            for model, rows in displacement[displacement["kind"] == kind].groupby("model", sort=False):
                style = styles[str(model)]
                axis.errorbar(
                    rows["predicted"],
                    rows["measured"],
                    xerr=rows["predicted_standard_error"],
                    yerr=rows["measured_standard_error"],
                    linestyle="none",
                    marker=style.marker,
                    markersize=4,
                    linewidth=1,
                    color=style.colour,
                    label=measurements.title(str(model)),
                )
            axis.axline((0, 0), slope=1, color=MUTED, linewidth=0.8)
            axis.set_title(title.capitalize())
            axis.set_xlabel("(σ²/2d)·Tr(H)")
            axis.set_ylabel("measured ΔL_harm")
            axis.locator_params(nbins=5)
        if not displacement.empty:
            axes[0].legend(frameon=False)
    return figure


def slices_figure(slices: pd.DataFrame, measurements: Measurements, settings: ReportConfig) -> Figure:
    """L_harm's change along each fine-tuning and along random directions of its length: a panel an attack."""
    styles = drawing.model_styles(measurements, settings)
    changes = slices[slices["quantity"] == CHANGE]
    with drawing.theme(settings):
        figure, axes = drawing.panels(max(1, len(measurements.attacks)), settings)
        for axis, attack in zip(axes, measurements.attacks, strict=False):
            for model in measurements.models:
                own = changes[changes["model"] == model]
                random = own[own["direction"].str.fullmatch(rf"random-\d+-{re.escape(attack)}")]
                _lines(axis, own[own["direction"] == attack], styles[model].colour, "-", measurements.title(model))
                _lines(axis, random, styles[model].colour, ":", None)
            axis.set_title(f"Fine-tuned on {measurements.target(attack)}")
            axis.set_xlabel("position: 0 unlearned, 1 fine-tuned")
            axis.set_ylabel("change of L_harm")
        axes[0].legend(frameon=False, title="dotted: random directions")
    return figure


def _lines(axis: Axes, rows: pd.DataFrame, colour: str, dash: str, label: str | None) -> None:
    """Every seed and direction faint, their mean strong."""
    if rows.empty:
        return
    for _, line in rows.groupby(["seed", "direction"]):
        axis.plot(line["position"], line["mean"], color=colour, linestyle=dash, linewidth=0.7, alpha=_FAINT)
    mean = rows.groupby("position")["mean"].mean()
    axis.plot(mean.index, mean, color=colour, linestyle=dash, label=label)
