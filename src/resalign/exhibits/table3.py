"""Table 3 of ResAlign: what each component contributes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.paper.evidence import Evidence
    from resalign.paper.products import Table

TITLE, KIND = "Components of ResAlign (ResAlign, Table 3)", "table"
READS = ("values",)
ABLATION = "components"


def make(evidence: Evidence) -> Table:
    """Safety and benign generation with components added one by one."""
    from resalign.paper.series import series_table

    return series_table(evidence, "table3", TITLE)
