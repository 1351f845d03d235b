"""Figure 6 of ResAlign, measured: the harmful loss around each model's weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.display.products import Drawn
    from resalign.exhibits._inputs import ExhibitInputs

TITLE, KIND = "The harmful loss around the weights (ResAlign, Figure 6, measured)", "figure"
READS, THEORY = ("values",), ("slices",)


def make(inputs: ExhibitInputs) -> Drawn:
    """Slices through the weights: every training seed and their mean; the numbers have intervals over the seeds.

    Deviation: the paper draws an illustration of a flat and a sharp minimum; these are measured slices.
    """
    from resalign.analysis.slices import over_seeds
    from resalign.display.products import Drawn
    from resalign.theory.theory_figures import slices_figure

    slices = inputs.frame("slices")
    figure = slices_figure(slices, inputs.measurements.main(), inputs.settings)
    return Drawn(over_seeds(slices, inputs.settings.confidence), figure)
