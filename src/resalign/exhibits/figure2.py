"""Figure 2 of ResAlign: what comes back over the steps of fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.paper.evidence import Evidence
    from resalign.paper.products import Drawn

TITLE, KIND = "Safety over fine-tuning steps (ResAlign, Figure 2)", "figure"
READS, ATTACKED = ("values",), True
ABLATION, ABLATION_ALONE = "steps", False


def make(evidence: Evidence) -> Drawn:
    """The first safety metric at every checkpoint of each attack; longer attacks of the ablation continue the lines."""
    import pandas as pd

    from resalign.paper.evidence import unique_cells
    from resalign.paper.products import Drawn
    from resalign.report.figures import steps_figure

    frame = evidence.main
    if "ablation" in evidence.files:
        more = evidence.frame("ablation").drop(columns="variant")
        frame = pd.concat([frame, more[more["attack"].isin(frame["attack"])]], ignore_index=True)
    names = evidence.measurements.main()
    frame = unique_cells(frame[frame["metric"] == names.safety_metric])
    frame = frame.sort_values("steps", kind="stable", ignore_index=True)
    return Drawn(frame, steps_figure(frame, names, evidence.settings, names.safety_metric))
