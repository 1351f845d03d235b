"""Which exhibits an experiment has, and what the others need."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.display.products import Table
    from resalign.exhibits._inputs import ExhibitInputs

TITLE, KIND = "Contents", "table"
READS = ()


def make(inputs: ExhibitInputs) -> Table:
    """One row an exhibit: its files, or what it needs where it is left out."""
    import pandas as pd

    from resalign.display.products import Table
    from resalign.exhibits._layouts import plain_layout

    frame = pd.DataFrame(
        [vars(entry) for entry in inputs.words.plan], columns=["exhibit", "title", "files", "left_out"]
    )
    headers = {"exhibit": "Exhibit", "title": "Shows", "files": "Files", "left_out": "Left out: needs"}
    return Table(frame, plain_layout(frame, headers, "The exhibits of this experiment."), headers["exhibit"])
