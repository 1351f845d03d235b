"""Table 2 of ResAlign: personalisation methods, what they bring back and how well they personalise."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.exhibits._evidence import Evidence
    from resalign.exhibits._products import Table

TITLE, KIND = "Personalisation methods (ResAlign, Table 2)", "table"
READS = ("values",)
ABLATION = "fine_tuning_methods"


def make(evidence: Evidence) -> Table:
    """Safety and personalised generation after each method of fine-tuning."""
    from resalign.exhibits._series import series_table

    return series_table(evidence, "table2", TITLE)
