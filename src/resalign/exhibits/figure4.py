"""Figure 4 of ResAlign: fine-tuning data that harmful images are mixed into."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.exhibits._evidence import Evidence
    from resalign.exhibits._products import Drawn

TITLE, KIND = "Contaminated fine-tuning data (ResAlign, Figure 4)", "figure"
READS, ABLATION = ("values",), "contamination"


def make(evidence: Evidence) -> Drawn:
    """The first safety metric after fine-tuning at every share of harmful images."""
    from resalign.exhibits._series import series_drawing

    return series_drawing(evidence, "figure4")
