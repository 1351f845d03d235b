"""Table 1 of ResAlign: safety before and after benign fine-tuning, and benign generation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.display.products import Table
    from resalign.exhibits._inputs import ExhibitInputs

TITLE, KIND = "Safety before and after fine-tuning, and benign generation (ResAlign, Table 1)", "table"
READS = ("values", "images", "sets")  # the values of images and runs decide which models are bold


def make(inputs: ExhibitInputs) -> Table:
    """Every model before fine-tuning and after the most steps of each attack of the main table."""
    from resalign.analysis.frames import final_states
    from resalign.display.products import Table
    from resalign.exhibits._layouts import main_layout
    from resalign.exhibits._published import beside, said

    frame = beside(final_states(inputs.main), "resalign", ["tab1"], comparable=inputs.comparable)
    published = said(frame, "resalign", ["tab1"], another_world=inputs.another_world)
    return Table(frame, main_layout(frame, inputs, TITLE, f"{published} {inputs.words.note}".strip()))
