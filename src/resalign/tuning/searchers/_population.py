"""Populations: models that are trained side by side, of which the worst go on from the best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from resalign.config.strict import ConfigError
from resalign.config.tuning import Costs, TuningConfig
from resalign.tuning.search import Problem, Search
from resalign.tuning.training import State, Values

SHARE = 0.2  # of the population: it goes on from as many of the best
FACTORS = (0.8, 1.2)


def members(config: TuningConfig, costs: Costs, cost_of_change: float = 0.0) -> int:
    """How many members the budget allows.

    Args:
        config: Budget and segments.
        costs: What each part of a search takes.
        cost_of_change: Network evaluations of :meth:`Population.changed`, besides the training's own.

    Raises:
        ConfigError: If not two.
    """
    changes = len(config.ends(costs.steps)) - 1
    cost = costs.steps * costs.step + config.segments * costs.value + changes * cost_of_change
    if config.budget < 2 * cost:
        raise ConfigError(f"tuning.budget {config.budget} allows no population of two, which takes {2 * cost:.0f}")
    return int(config.budget // cost)


@dataclass
class Member:
    """A training under way.

    Attributes:
        values: Of the searched fields.
        state: Of its training; None before its first step.
        value: Its last validation loss.
        parent: Whose place it has just taken over; -1 for its own.
    """

    values: Values
    state: State | None = None
    value: float = math.inf
    parent: int = -1


class Population(Search):
    """A round is one member's segment of training; before a segment's first, the worst become copies of the best."""

    def __init__(self, problem: Problem, cost_of_change: float = 0.0) -> None:
        """As many members as the budget allows; see :func:`members`."""
        config, self._cost_of_change = problem.config, cost_of_change
        size = members(config, problem.costs, cost_of_change)
        super().__init__(problem, size * config.segments)
        self.ends = config.ends(problem.costs.steps)
        self.members = [
            Member({name: ends.at(self.random.random()) for name, ends in config.fields.items()}) for _ in range(size)
        ]

    def round(self, position: int) -> None:
        """One member's segment."""
        segment, index = divmod(position, len(self.members))
        if segment and not index:
            self._exploit()
        member, derivatives = self.members[index], Values()
        begin = self.ends[segment - 1] if segment else 0
        if member.parent >= 0:
            member.values = self.perturbed(member.values, self.at_random)
        if segment:
            derivatives = self.changed(member, begin)
            self.spent += self._cost_of_change
        judged, member.state = self.problem.judged(member.values, self.ends[segment], member.state)
        self.spent += (self.ends[segment] - begin) * self.problem.costs.step + self.problem.costs.value
        member.value = judged.value
        where = self.ends[segment]
        self.record(index, where, member.values, judged, parent=member.parent, derivatives=derivatives)
        member.parent = -1

    @property
    def at_random(self) -> Iterable[str]:
        """The fields of a copy that are perturbed."""
        return self.problem.config.fields

    def changed(self, member: Member, begin: int) -> Values:
        """Changes a member's values, and may take steps of the segment that begins at a step.

        Returns:
            The derivatives by which it did, for the record.
        """
        return {}

    def perturbed(self, values: Values, names: Iterable[str]) -> Values:
        """Values of which some are multiplied by one of the two factors, within their ranges."""
        return {**values, **{name: self.times(name, values[name], self.random.choice(FACTORS)) for name in names}}

    def times(self, name: str, value: float, factor: float) -> float:
        """A multiple of a field's value, within its range."""
        return float(self.problem.config.fields[name].clipped(value * factor))

    def _exploit(self) -> None:
        """The worst fifth, and whatever diverged, goes on from a random one of the best fifth."""
        order = sorted(range(len(self.members)), key=lambda index: self.members[index].value)
        count = max(1, round(SHARE * len(order)))
        best = [index for index in order[:count] if math.isfinite(self.members[index].value)]
        for position, index in enumerate(order):
            member = self.members[index]
            if best and (position >= len(order) - count or not math.isfinite(member.value)):
                parent = best[int(self.random.integers(len(best)))]
                source = self.members[parent]
                self.members[index] = Member(dict(source.values), source.state, source.value, parent)

    def state_dict(self) -> dict[str, Any]:
        """Also the members."""
        return {**super().state_dict(), "members": [dict(vars(member)) for member in self.members]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from there."""
        super().load_state_dict(state)
        self.members = [Member(**member) for member in state["members"]]
