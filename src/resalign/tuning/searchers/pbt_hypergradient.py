"""Population-based training whose differentiable fields follow their hypergradient.

Before a segment every member takes a window of its steps as it is, and once more for each differentiable field with
that field a little larger, on the same batches; the difference of the weights times the gradient of the validation loss
is the derivative by the field. The field is then multiplied by 1.2 or 0.8, whichever lowers the loss, where plain
population-based training lets chance choose. Other fields of a copy are perturbed.

Source: Tao 2020, NeurIPS, "Learning to Mutate with Hypergradient Guided Population", whose students do so. Its teacher,
a network that learns the mutation, is not here, so that this is not that method.
"""

from __future__ import annotations

import math

from resalign.tensors.params import add, dot
from resalign.tensors.steps import DivergenceError
from resalign.tracking import log
from resalign.tuning.search import Problem
from resalign.tuning.searchers._population import FACTORS, Member, Population
from resalign.tuning.training import Values

LARGER = 1.01  # by which a field is multiplied for its difference


class Search(Population):
    """A window for each differentiable field and one gradient of the validation loss, besides what all have."""

    def __init__(self, problem: Problem) -> None:
        """Begins."""
        config = problem.config
        windows = len(config.differentiable) * config.window * problem.costs.step
        super().__init__(problem, windows + problem.costs.slope)
        shortest = min(end - begin for begin, end in zip([0, *self.ends], self.ends, strict=False))
        self._window = min(config.window, shortest)

    def changed(self, member: Member, begin: int) -> Values:
        """Takes the window, then moves the values."""
        config, training, validation = self.problem.config, self.problem.training, self.problem.validation
        end = begin + self._window
        try:
            weights, state = training.trained(member.values, end, member.state)
            here, slope = validation.weights(weights), validation.slope(weights)
            derivatives = {}
            for name in config.differentiable:
                larger = {**member.values, name: member.values[name] * LARGER}
                there = validation.weights(training.trained(larger, end, member.state)[0])
                derivatives[name] = float(dot(slope, add(there, here, -1.0))) / math.log(LARGER)
        except DivergenceError as error:
            log.warning("no derivative: %s", error)
            return {}
        member.state = state
        others = [name for name in member.values if name not in config.differentiable]
        values = self.perturbed(member.values, others if member.copied else [])
        for name, derivative in derivatives.items():
            if derivative:
                values[name] = self.clipped(name, values[name] * FACTORS[derivative < 0])
        member.values = values
        return derivatives
