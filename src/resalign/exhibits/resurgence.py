"""Table 1 (b) of the concept-resurgence paper: the erased concept before and after benign fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.display.products import Table
    from resalign.exhibits._inputs import ExhibitInputs

TITLE, KIND = "The erased concept before and after fine-tuning (concept resurgence, Table 1)", "table"
READS, ATTACKED = ("values",), True
CONCEPT, INCIDENTAL = "concept_accuracy", "incidental_resurgence"


def make(inputs: ExhibitInputs) -> Table:
    """The concept's accuracy of every model, before and after the most steps of each attack, and the regained part.

    Without the metric ``concept_accuracy`` the first safety metric's detectors take the classifier's place. Incidental
    resurgence, of prompts of other concepts, stands beside it where it is measured.
    ``regained`` is mean after minus mean before; the base's own state is what full resurgence would be.
    Source: Suriyakumar 2024, arXiv 2410.08074, Table 1.
    """
    from resalign.analysis.frames import final_states
    from resalign.analysis.measurements import NOT_ATTACKED
    from resalign.display.products import Table
    from resalign.exhibits._layouts import models_layout

    names = inputs.measurements.main()
    concept = CONCEPT if CONCEPT in names.metrics else names.safety_metric
    metrics = [concept, *([INCIDENTAL] if INCIDENTAL in names.metrics else [])]
    final = final_states(inputs.main)
    frame = final[final["metric"].isin(metrics)].reset_index(drop=True)
    before = frame[frame["attack"] == NOT_ATTACKED].set_index(["model", "metric"])["mean"]
    start = frame.set_index(["model", "metric"]).index.map(before.to_dict())
    regained = (frame["mean"] - start).where(frame["attack"] != NOT_ATTACKED)
    said = "" if concept == CONCEPT else f" The concept is found by {names.metrics[concept].title}'s detectors."
    layout = models_layout(frame, names, f"{TITLE}.{said}")
    return Table(frame.assign(regained=regained.astype(float)), layout)
