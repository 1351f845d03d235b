"""Searches that train one model after the other, each at values that Optuna asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from resalign.config.strict import ConfigError
from resalign.config.tuning import Costs, TuningConfig
from resalign.running.folder import StateError
from resalign.tuning.search import Problem, Search

if TYPE_CHECKING:
    import optuna


def trainings(config: TuningConfig, costs: Costs) -> int:
    """How many trainings the budget allows.

    Raises:
        ConfigError: If not one.
    """
    cost = costs.steps * costs.step + costs.value
    if config.budget < cost:
        raise ConfigError(f"tuning.budget {config.budget} is less than one training takes, {cost:.0f}")
    return int(config.budget // cost)


class Sequential(Search):
    """A round is a whole training.

    One that diverges is told as failed, which Optuna's samplers ignore: they learn nothing from it.
    """

    def __init__(self, problem: Problem, sampler: optuna.samplers.BaseSampler) -> None:
        """Args: what is searched, and who chooses its values."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        super().__init__(problem, trainings(problem.config, problem.costs))
        self._study, self._failed = optuna.create_study(sampler=sampler), optuna.trial.TrialState.FAIL
        within, ranges = optuna.distributions.FloatDistribution, problem.config.fields.items()
        self._fields: dict[str, Any] = {name: within(ends.low, ends.high, log=True) for name, ends in ranges}

    def round(self, position: int) -> None:
        """Asks, trains, validates, tells."""
        asked, costs = self._study.ask(self._fields), self.problem.costs
        judged, _ = self.problem.judged(asked.params, costs.steps)
        self.spent += costs.steps * costs.step + costs.value
        self.record(position, costs.steps, asked.params, judged)
        self._tell(asked, judged.value)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Asks and tells again what has been: the sampler goes on as if it had never stopped.

        Raises:
            StateError: If it does not ask for the same.
        """
        super().load_state_dict(state)
        for trial in self.trials:
            asked = self._study.ask(self._fields)
            if asked.params != trial.values:
                raise StateError("Optuna's sampler does not repeat itself; delete this search's .state to begin again")
            self._tell(asked, trial.value)

    def _tell(self, asked: optuna.Trial, value: float) -> None:
        if math.isfinite(value):
            self._study.tell(asked, value)
        else:
            self._study.tell(asked, state=self._failed)
