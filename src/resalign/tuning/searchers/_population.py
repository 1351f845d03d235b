"""Populations: models that are trained side by side, of which the worst go on from the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resalign.config.strict import ConfigError
from resalign.config.tuning import log_uniform
from resalign.tuning.search import Problem, Search
from resalign.tuning.training import State, Values

SHARE = 0.2  # of the population: it goes on from as many of the best
FACTORS = (0.8, 1.2)


@dataclass
class Member:
    """A training under way.

    Attributes:
        values: Of the searched fields.
        state: Of its training; None before its first step.
        value: Its last validation loss.
        copied: Whether it has just taken another's place.
    """

    values: Values
    state: State | None = None
    value: float = math.inf
    copied: bool = False


class Population(Search):
    """A round is one member's segment of training; before a segment's first, the worst become copies of the best."""

    def __init__(self, problem: Problem, cost_of_change: float = 0.0) -> None:
        """As many members as the budget allows.

        Args:
            problem: What is searched.
            cost_of_change: Network evaluations of :meth:`changed`, besides the training's own.

        Raises:
            ConfigError: If it allows no two.
        """
        config, costs, steps = problem.config, problem.costs, problem.training.steps
        if steps < config.segments:
            raise ConfigError(f"tuning.segments {config.segments} are more than the {steps} steps of a training")
        self.ends = [round(steps * (segment + 1) / config.segments) for segment in range(config.segments)]
        self._cost_of_change = cost_of_change
        cost = steps * costs.step + config.segments * costs.value + (config.segments - 1) * cost_of_change
        size = int(config.budget // cost)
        if size < 2:
            raise ConfigError(f"tuning.budget {config.budget} allows no population of two; give {2 * cost:.0f} or more")
        super().__init__(problem, size * config.segments)
        self.members = [
            Member({name: log_uniform(ends, self.random.random()) for name, ends in config.fields.items()})
            for _ in range(size)
        ]

    def round(self, position: int) -> None:
        """One member's segment."""
        segment, index = divmod(position, len(self.members))
        if segment and not index:
            self._exploit()
        member, derivatives = self.members[index], Values()
        begin = self.ends[segment - 1] if segment else 0
        if segment:
            derivatives = self.changed(member, begin)
            self.spent += self._cost_of_change
        judged, member.state = self.problem.judged(member.values, self.ends[segment], member.state)
        self.spent += (self.ends[segment] - begin) * self.problem.costs.step + self.problem.costs.value
        member.value, member.copied = judged.value, False
        self.record(index, self.ends[segment], member.values, judged, derivatives)

    def changed(self, member: Member, begin: int) -> Values:
        """Changes a member's values, and may take steps of the segment that begins at a step.

        Returns:
            The derivatives by which it did, for the record.
        """
        raise NotImplementedError

    def perturbed(self, values: Values, names: list[str]) -> Values:
        """Values of which some are multiplied by one of the two factors, within their ranges."""
        return {**values, **{name: self.clipped(name, values[name] * self.random.choice(FACTORS)) for name in names}}

    def clipped(self, name: str, value: float) -> float:
        """The nearest value of a field's range."""
        ends = self.problem.config.fields[name]
        return float(min(max(value, ends.low), ends.high))

    def _exploit(self) -> None:
        """The worst fifth, and whatever diverged, goes on from a random one of the best fifth."""
        order = sorted(self.members, key=lambda member: member.value)
        count = max(1, round(SHARE * len(order)))
        best = [member for member in order[:count] if math.isfinite(member.value)]
        for position, member in enumerate(order):
            if best and (position >= len(order) - count or not math.isfinite(member.value)):
                source = best[int(self.random.integers(len(best)))]
                member.values, member.state, member.value = dict(source.values), source.state, source.value
                member.copied = True

    def state_dict(self) -> dict[str, Any]:
        """Also the members."""
        return {**super().state_dict(), "members": [dict(vars(member)) for member in self.members]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from there."""
        super().load_state_dict(state)
        self.members = [Member(**member) for member in state["members"]]
