"""Figure 1 of ResAlign, as numbers: every model before and after fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.display.products import Drawn
    from resalign.exhibits._inputs import ExhibitInputs

TITLE, KIND = "Before and after fine-tuning, by method (after ResAlign, Figure 1)", "figure"
READS, ATTACKED = ("values",), True


def make(inputs: ExhibitInputs) -> Drawn:
    """The first safety metric before and after each attack of the main table.

    Deviation: the paper shows explicit images; here are the rates of all images, and figure3 has samples.
    """
    from resalign.analysis.frames import final_states
    from resalign.display.panels import before_after_panels
    from resalign.display.products import Drawn

    names = inputs.measurements.main()
    frame = final_states(inputs.main)
    frame = frame[frame["metric"] == names.safety_metric]
    return Drawn(frame, before_after_panels(frame, names, inputs.settings, names.safety_metric))
