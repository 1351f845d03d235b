"""Table 4 of ResAlign: learning rates of fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.exhibits._evidence import Evidence
    from resalign.exhibits._products import Table

TITLE, KIND = "Learning rates of fine-tuning (ResAlign, Table 4)", "table"
READS = ("values",)
ABLATION = "learning_rates"


def make(evidence: Evidence) -> Table:
    """Safety after fine-tuning at each learning rate, and whether anything was learnt there."""
    from resalign.exhibits._series import series_table

    return series_table(evidence, "table4", TITLE)
