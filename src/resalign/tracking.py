"""What a stage records while it runs: quantities by step."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

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

    def write(self, path: Path) -> None:
        """Writes ``step,quantity,value`` rows."""
        lines = ["step,quantity,value", *(f"{step},{name},{value:.9g}" for step, name, value in self.rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
