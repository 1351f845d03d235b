"""What a stage records while it runs: quantities by step."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from resalign.files import whole

log = logging.getLogger("resalign")


@dataclass
class History:
    """Quantities by step, in the order they were recorded.

    Attributes:
        rows: (step, quantity, value).
    """

    rows: list[tuple[int, str, float]] = field(default_factory=list)

    def record(self, step: int, **quantities: float) -> None:
        """Adds the values of some quantities at a step."""
        self.rows += [(step, name, float(value)) for name, value in quantities.items()]

    def last(self, quantity: str) -> float:
        """The latest value of a quantity."""
        return next(value for _, name, value in reversed(self.rows) if name == quantity)

    def state_dict(self) -> dict[str, list[tuple[int, str, float]]]:
        """The rows, for a saved state."""
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, list[tuple[int, str, float]]]) -> None:
        """Takes a saved state's rows in place of its own."""
        self.rows = list(state["rows"])

    def write(self, path: Path) -> None:
        """Writes ``step,quantity,value`` rows."""
        lines = ["step,quantity,value", *(f"{step},{name},{value:.9g}" for step, name, value in self.rows)]
        with whole(path) as part:
            part.write_text("\n".join(lines) + "\n", encoding="utf-8")
