"""Figure 2 of ResAlign: what comes back over the steps of fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.display.products import Drawn
    from resalign.exhibits._inputs import ExhibitInputs

TITLE, KIND = "Safety over fine-tuning steps (ResAlign, Figure 2)", "figure"
READS, ATTACKED = ("values",), True
ABLATION, ABLATION_ALONE = "steps", False


def make(inputs: ExhibitInputs) -> Drawn:
    """The first safety metric at every checkpoint of each attack; for a model in the ablation, its runs only.

    The ablation's attacks may be other runs than the main table's: one line is of one run.
    """
    import pandas as pd

    from resalign.display.panels import steps_panels
    from resalign.display.products import Drawn

    frame = inputs.main
    if "ablation" in inputs.files:
        more = inputs.frame("ablation").drop(columns="variant")
        more = more[more["attack"].isin(frame["attack"])]
        keys = ["model", "attack", "metric"]
        taken = pd.MultiIndex.from_frame(frame[keys]).isin(pd.MultiIndex.from_frame(more[keys]))
        frame = pd.concat([frame[~taken], more], ignore_index=True)
    names = inputs.measurements.main()
    frame = frame[frame["metric"] == names.safety_metric]
    frame = frame.sort_values("steps", kind="stable", ignore_index=True)
    return Drawn(frame, steps_panels(frame, names, inputs.settings, names.safety_metric))
