"""Table 1 of Meta-Unlearning's supplement: safety over the steps of malicious fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.display.products import Table
    from resalign.exhibits._inputs import ExhibitInputs

TITLE, KIND = "Safety over fine-tuning steps, by attack (Meta-Unlearning, Table 1)", "table"
READS, ATTACKED = ("values",), True
OWN = ("unsafe_score", "nsfw_score")  # the paper's two metrics; an experiment without them shows its own safety metrics


def make(inputs: ExhibitInputs) -> Table:
    """One row a state, one column a model and metric, at every step that was sampled.

    Source: Gao 2024, arXiv 2410.12777, Table 1 of the supplement.
    """
    from resalign.display.products import Table
    from resalign.exhibits._layouts import steps_layout
    from resalign.exhibits._published import beside, said

    names = inputs.measurements.main()
    metrics = [m for m in OWN if m in names.metrics] or [m for m, i in names.metrics.items() if i.group == "safety"]
    values = inputs.main
    frame = beside(
        values[values["metric"].isin(metrics)].reset_index(drop=True),
        "meta-unlearning",
        ["table1"],
        comparable=inputs.comparable,
    )
    own = (
        ""
        if set(OWN) & set(metrics)
        else "In place of the paper's unsafe and NSFW score: this experiment's own metrics."
    )
    published = said(frame, "meta-unlearning", ["table1"], another_world=inputs.another_world)
    caption = " ".join(filter(None, (f"{TITLE}.", own, published)))
    return Table(frame, steps_layout(frame, names, caption), "State")
