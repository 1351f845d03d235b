"""How often a step runs the denoiser, which is what its time follows from where it was not measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Passes:
    """Passes of one example each through the denoiser; of a random number, the mean.

    Attributes:
        gradient: Forward and backward, to the weights or to the embedded prompts.
        forward: Without a gradient.
    """

    gradient: float = 0.0
    forward: float = 0.0

    @property
    def evaluations(self) -> float:
        """Evaluations of the network on one example; a backward pass counts as two."""
        return 3 * self.gradient + self.forward

    def __mul__(self, times: float) -> Passes:
        """Of so many steps or examples."""
        return Passes(self.gradient * times, self.forward * times)

    def __add__(self, other: Passes) -> Passes:
        """Of both."""
        return Passes(self.gradient + other.gradient, self.forward + other.forward)

    def __str__(self) -> str:
        """Such as ``30 gradient + 1,501 forward passes``."""
        kinds = {"gradient": self.gradient, "forward": self.forward}
        return " + ".join(f"{count:,.6g} {kind}" for kind, count in kinds.items() if count) + " passes"
