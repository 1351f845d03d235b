"""Searches that train one model after the other, each at values that Optuna asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from resalign.tuning.search import Problem, Search

if TYPE_CHECKING:
    import optuna


class Sequential(Search):
    """A round is a whole training."""

    def __init__(self, problem: Problem, sampler: optuna.samplers.BaseSampler) -> None:
        """Args: what is searched, and who chooses its values."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._cost = problem.training.steps * problem.costs.step + problem.costs.value
        super().__init__(problem, int(problem.config.budget // self._cost))
        self._study, self._failed = optuna.create_study(sampler=sampler), optuna.trial.TrialState.FAIL
        ranges = problem.config.fields.items()
        self._fields: dict[str, Any] = {
            name: optuna.distributions.FloatDistribution(r.low, r.high, log=True) for name, r in ranges
        }

    def round(self, position: int) -> None:
        """Asks, trains, validates, tells."""
        asked = self._study.ask(self._fields)
        judged, _ = self.problem.judged(asked.params, self.problem.training.steps)
        self.spent += self._cost
        self.record(position, self.problem.training.steps, asked.params, judged)
        self._tell(asked, judged.value)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Asks and tells again what has been: the sampler goes on as if it had never stopped."""
        super().load_state_dict(state)
        for trial in self.trials:
            asked = self._study.ask(self._fields)
            assert asked.params == trial.values, "the sampler does not repeat itself: another version of Optuna?"
            self._tell(asked, trial.value)

    def _tell(self, asked: optuna.Trial, value: float) -> None:
        if math.isfinite(value):
            self._study.tell(asked, value)
        else:
            self._study.tell(asked, state=self._failed)
