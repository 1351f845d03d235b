"""Figure 6 of ResAlign, measured: the harmful loss around each model's weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.paper.evidence import Evidence
    from resalign.paper.products import Drawn

TITLE, KIND = "The harmful loss around the weights (ResAlign, Figure 6, measured)", "figure"
READS, THEORY = ("values",), ("slices",)


def make(evidence: Evidence) -> Drawn:
    """Each loss along each direction: the mean over training seeds with its interval.

    Deviation: the paper draws an illustration of a flat and a sharp minimum; these are measured slices.
    """
    from resalign.paper.drawings import slices_figure
    from resalign.paper.products import Drawn
    from resalign.paper.slices import over_seeds, said_of_bands

    frame = over_seeds(evidence.frame("slices"), evidence.settings.confidence)
    names = evidence.naming(frame.assign(attack="none", dataset="", metric=evidence.measurements.safety_metric))
    caption = said_of_bands(frame, evidence.settings.confidence)
    return Drawn(frame, slices_figure(frame, names, evidence.settings, caption))
