"""Displacement: how far unlearning has moved the weights, or the loss barrier on the way; neither end is better."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from resalign.config.strict import Strict
from resalign.metrics._flags import Need

if TYPE_CHECKING:
    import pandas as pd

TITLE, BETTER, KIND, GROUP = "Weight distance", "neither", "set", "weights"
RANGE = (0.0, None)


class Config(Strict):
    """Which quantity; see :mod:`resalign.objectives.displacement`."""

    quantity: Literal["weight_distance", "relative_distance", "loss_barrier"] = Field(
        "weight_distance",
        description="‖θ − θ₀‖, its share of ‖θ₀‖ over the changed tensors, or how far retained images' loss rises "
        "above its chord between the two",
    )

    def needs(self) -> list[Need]:
        """Nothing: it reads no scorer."""
        return []


def of_unlearning(history: pd.DataFrame, config: Config) -> float:
    """The value that unlearning has recorded of its result.

    Args:
        history: The record of unlearning: step, quantity, value.
        config: Settings.
    """
    return float(history.loc[history["quantity"] == config.quantity, "value"].iloc[-1])
