"""Figure 5 of ResAlign: the proximal weight γ."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.exhibits._evidence import Evidence
    from resalign.exhibits._products import Drawn

TITLE, KIND = "Effect of γ (ResAlign, Figure 5)", "figure"
READS, ABLATION = ("values",), "gamma"


def make(evidence: Evidence) -> Drawn:
    """Safety after fine-tuning and benign generation at every γ."""
    from resalign.exhibits._series import series_drawing

    return series_drawing(evidence, "figure5")
