"""What the loops of a method hold, before and after each of their steps."""

from collections.abc import Iterator
from typing import Any

from resalign.running.attempt import Attempt
from resalign.tensors.params import Params, detached


class Recording(Attempt):
    """An attempt that keeps copies of the variables.

    Attributes:
        starts: The variables before the first step of each loop, by its phase.
        path: (phase, variables) after each step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.starts: dict[str, Params] = {}
        self.path: list[tuple[str, Params]] = []

    def steps(self, steps: range, *, phase: str = "steps", **held: Any) -> Iterator[int]:
        """The steps of a loop."""
        self.starts[phase] = detached(held["variables"])
        for step in super().steps(steps, phase=phase, **held):
            yield step
            self.path.append((phase, detached(held["variables"])))
