"""Table 3 of ResAlign: what each component contributes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.exhibits._evidence import Evidence
    from resalign.exhibits._products import Table

TITLE, KIND = "Components of ResAlign (ResAlign, Table 3)", "table"
READS = ("values",)
ABLATION = "components"


def make(evidence: Evidence) -> Table:
    """Safety and benign generation with components added one by one."""
    from resalign.exhibits._series import series_table

    return series_table(evidence, "table3", TITLE)
