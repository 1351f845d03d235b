"""Figure 6 of ResAlign, measured: the harmful loss around each model's weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.paper.evidence import Evidence
    from resalign.paper.products import Drawn

TITLE, KIND = "The harmful loss around the weights (ResAlign, Figure 6, measured)", "figure"
READS, THEORY = ("values",), ("slices",)
_TWO_SIDED = 1.96  # normal quantile of a 95 % interval


def make(evidence: Evidence) -> Drawn:
    """Each loss along each direction: the mean over seeds, with the standard errors of its estimates combined.

    Deviation: the paper draws an illustration of a flat and a sharp minimum; these are measured slices.
    """
    from resalign.paper.drawings import slices_figure
    from resalign.paper.products import Drawn

    slices = evidence.frame("slices")
    keys = ["model", "direction", "quantity", "position"]
    frame = slices.groupby(keys, sort=False).agg(
        mean=("mean", "mean"),
        standard_error=("standard_error", lambda errors: (errors**2).sum() ** 0.5 / len(errors)),
        seeds=("seed", "nunique"),
    )
    frame = frame.reset_index()
    half = _TWO_SIDED * frame["standard_error"]
    frame = frame.assign(low=frame["mean"] - half, high=frame["mean"] + half)
    names = evidence.naming(frame.assign(attack="none", dataset="", metric=evidence.measurements.safety_metric))
    return Drawn(frame, slices_figure(frame, names, evidence.settings))
