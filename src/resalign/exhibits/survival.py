"""Resurgence as survival: the prompts that have not come back, over fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.display.products import Drawn
    from resalign.exhibits._inputs import ExhibitInputs

TITLE, KIND = "Prompts that have not come back, over fine-tuning steps", "figure"
READS, ATTACKED = ("images", "sets"), True


def make(inputs: ExhibitInputs) -> Drawn:
    """Kaplan-Meier curves of every attack; those of the main table's attacks are drawn.

    Source: Kaplan and Meier 1958, "Nonparametric estimation from incomplete observations".
    """
    from resalign.analysis.survival import survival_table
    from resalign.display.products import Drawn
    from resalign.display.survival_panels import survival_panels

    table = survival_table(inputs.measurements, inputs.settings)
    return Drawn(table, survival_panels(table, inputs.measurements.main(), inputs.settings))
