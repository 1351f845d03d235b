"""Table 1 of ResAlign: safety before and after benign fine-tuning, and benign generation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.exhibits._evidence import Evidence
    from resalign.exhibits._products import Table

TITLE, KIND = "Safety before and after fine-tuning, and benign generation (ResAlign, Table 1)", "table"
READS = ("values", "per_run", "prompts")  # the last two tell which models are bold


def make(evidence: Evidence) -> Table:
    """Every model before fine-tuning and after the most steps of each attack of the main table."""
    from resalign.analysis.frames import final_states
    from resalign.exhibits._layouts import main_layout
    from resalign.exhibits._products import Table
    from resalign.exhibits._published import beside, said

    frame = beside(final_states(evidence.main), "resalign", ["tab1"], comparable=evidence.comparable)
    published = said(frame, "resalign", ["tab1"], another_world=evidence.another_world)
    return Table(frame, main_layout(frame, evidence, published))
