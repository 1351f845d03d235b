"""Population-based training whose differentiable fields follow their hypergradient.

Before a segment every member takes a window of its steps as it is, and once more for each differentiable field with
that field a little larger, on the same batches; the difference of the weights times the gradient of the validation loss
is the derivative by the field. The field is then multiplied by 1.2 or 0.8, whichever lowers the loss, where plain
population-based training lets chance choose, and for copies only. A copy's other fields are perturbed, and all of them
where no derivative could be taken.

Source: Tao 2020, NeurIPS, "Learning to Mutate with Hypergradient Guided Population", whose students do so. Its teacher,
a network that learns the mutation, is not here, so that this is not that method.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from resalign.config.strict import ConfigError
from resalign.config.tuning import Costs, TuningConfig
from resalign.tensors.params import add, dot
from resalign.tensors.steps import DivergenceError
from resalign.tracking import log
from resalign.tuning.search import Problem
from resalign.tuning.searchers._population import FACTORS, Member, Population, members
from resalign.tuning.training import Values

LARGER = 1.01  # by which a field is multiplied for its difference


def rounds(config: TuningConfig, costs: Costs) -> int:
    """Segments within the budget.

    Raises:
        ConfigError: If a window is longer than a segment.
    """
    ends = config.ends(costs.steps)
    shortest = min(end - begin for begin, end in zip(ends, ends[1:], strict=False))
    if config.window > shortest:
        raise ConfigError(f"tuning.window: {config.window} are more than the {shortest} steps of a segment")
    return members(config, costs, _cost(config, costs)) * config.segments


def _cost(config: TuningConfig, costs: Costs) -> float:
    """Of the derivatives of one member: a window for each field, and the slope."""
    return len(config.differentiable) * config.window * costs.step + costs.slope


class Search(Population):
    """A window for each differentiable field and one gradient of the validation loss, besides what all have."""

    def __init__(self, problem: Problem) -> None:
        """Begins."""
        super().__init__(problem, _cost(problem.config, problem.costs))

    @property
    def at_random(self) -> Iterable[str]:
        """The fields that have no derivative."""
        config = self.problem.config
        return [name for name in config.fields if name not in config.differentiable]

    def changed(self, member: Member, begin: int) -> Values:
        """Takes the window, then moves the values; where that diverges, a copy's are perturbed."""
        config = self.problem.config
        try:
            derivatives = self._derivatives(member, begin + config.window)
        except DivergenceError as error:
            log.warning("no derivative: %s", error)
            if member.parent >= 0:
                member.values = self.perturbed(member.values, config.differentiable)
            return {}
        for name, derivative in derivatives.items():
            if derivative:
                member.values[name] = self.times(name, member.values[name], FACTORS[derivative < 0])
        return derivatives

    def _derivatives(self, member: Member, end: int) -> Values:
        """Of the validation loss after the window, by each field's logarithm; the member has taken its steps then."""
        training, validation = self.problem.training, self.problem.validation
        weights, state = training.trained(member.values, end, member.state)
        here, slope = validation.weights(weights), validation.slope(weights)
        derivatives = {}
        for name in self.problem.config.differentiable:
            larger = member.values[name] * LARGER
            factor = LARGER if larger <= self.problem.config.fields[name].high else 1 / LARGER
            values = {**member.values, name: member.values[name] * factor}
            there = validation.weights(training.trained(values, end, member.state)[0])
            derivatives[name] = float(dot(slope, add(there, here, -1.0))) / math.log(factor)
        member.state = state
        return derivatives
