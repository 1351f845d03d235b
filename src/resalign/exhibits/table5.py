"""Table 5 of ResAlign: optimizers of fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.exhibits._evidence import Evidence
    from resalign.exhibits._products import Table

TITLE, KIND = "Optimizers of fine-tuning (ResAlign, Table 5)", "table"
READS = ("values",)
ABLATION = "optimizers"


def make(evidence: Evidence) -> Table:
    """Safety after fine-tuning with each optimizer, and whether anything was learnt there."""
    from resalign.exhibits._series import series_table

    return series_table(evidence, "table5", TITLE)
