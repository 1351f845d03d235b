"""Every method in one table: safety before and after fine-tuning, benign generation, and what unlearning did."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.display.products import Table
    from resalign.exhibits._inputs import ExhibitInputs

TITLE, KIND = "Methods: before and after fine-tuning, and what unlearning did to the weights", "table"
READS = ("values",)
NOTE = "note"


def make(inputs: ExhibitInputs) -> Table:
    """Every metric of every model, after the most steps of each attack; the configuration's notes stand in the rows."""
    from dataclasses import replace

    from resalign.analysis.frames import final_states
    from resalign.display.layout import Cell, Column
    from resalign.display.products import Table
    from resalign.exhibits._layouts import models_layout

    notes = inputs.words.notes
    frame = final_states(inputs.main)
    layout = models_layout(frame, inputs.measurements.main(), f"{TITLE}.")
    if notes:
        rows = (replace(row, cells=(*row.cells, Cell(notes.get(row.model, "")))) for row in layout.rows)
        columns = (*layout.columns, Column("", "Note", "", NOTE))
        layout = replace(layout, columns=columns, rows=tuple(rows))
    return Table(frame.assign(note=[notes.get(model, "") for model in frame["model"]]), layout)
