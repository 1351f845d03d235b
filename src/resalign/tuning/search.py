"""What every searcher has in common: its budget, its record, the problem that it is given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from resalign.config.tuning import Costs, TuningConfig
from resalign.running.held import capture, restore
from resalign.tensors.seeds import derive_seed
from resalign.tensors.steps import DivergenceError
from resalign.tracking import log
from resalign.tuning.training import State, Training, Values
from resalign.tuning.validation import Judged, Validation

if TYPE_CHECKING:
    import pandas as pd

_DIVERGED = Judged(math.inf, math.inf, math.inf)


@dataclass(frozen=True)
class Problem:
    """What is searched, and by what it is judged.

    Attributes:
        training: The method on its data.
        validation: The loss to lower.
        config: Fields, ranges, budget.
        costs: What each part of a search takes.
        seed: Of the search.
    """

    training: Training
    validation: Validation
    config: TuningConfig
    costs: Costs
    seed: int

    def judged(self, values: Values, until: int, state: State | None = None) -> tuple[Judged, State | None]:
        """Trains up to a step and validates; infinite losses where one diverges, with the last good state."""
        reached = state
        try:
            weights, reached = self.training.trained(values, until, state)
            return self.validation(weights), reached
        except DivergenceError as error:
            log.warning("%s: %s", ", ".join(f"{name} {value:.3g}" for name, value in values.items()), error)
            return _DIVERGED, reached


@dataclass(frozen=True)
class Trial:
    """A model that was validated.

    Attributes:
        member: Which training, counted from 0.
        parent: Whose weights and values it had taken before the steps to here; -1 for its own.
        steps: How many steps of a training were taken.
        values: The searched fields in the last of them.
        value, harmful, retained: The validation loss and its parts; infinite where training diverged.
        evaluations: Network evaluations of the whole search, up to here.
        derivatives: Of the validation loss by the logarithm of each field, where they were taken for the steps to here.
    """

    member: int
    parent: int
    steps: int
    values: Values
    value: float
    harmful: float
    retained: float
    evaluations: float
    derivatives: Values


class Search:
    """A search as rounds that are taken one after the other; a searcher's ``Search`` has a ``round``.

    Attributes:
        rounds: How many the budget allows.
        trials: What has been validated.
        spent: Network evaluations so far.
    """

    def __init__(self, problem: Problem, rounds: int) -> None:
        """See the attributes."""
        self.problem, self.rounds = problem, rounds
        self.trials: list[Trial] = []
        self.spent = 0.0
        self.random = np.random.default_rng(derive_seed("tuning", type(self).__module__, problem.seed))

    def round(self, position: int) -> None:
        """Takes one round."""
        raise NotImplementedError

    def record(
        self,
        member: int,
        steps: int,
        values: Values,
        judged: Judged,
        *,
        parent: int = -1,
        derivatives: Values | None = None,
    ) -> None:
        """Adds a trial."""
        self.trials.append(Trial(member, parent, steps, dict(values), *judged, self.spent, derivatives or {}))

    def state_dict(self) -> dict[str, Any]:
        """All that a later round depends on."""
        trials = [asdict(trial) for trial in self.trials]
        return {"trials": trials, "spent": self.spent, "random": capture(self.random)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from there."""
        self.trials = [Trial(**trial) for trial in state["trials"]]
        self.spent = state["spent"]
        restore(self.random, state["random"])

    def table(self) -> pd.DataFrame:
        """A row for each trial; columns ``field.NAME`` and ``derivative.NAME``, empty where none was taken.

        Raises:
            DivergenceError: If no whole training has a finite loss.
        """
        import pandas as pd

        whole = [trial.value for trial in self.trials if trial.steps == self.problem.costs.steps]
        if not any(map(math.isfinite, whole)):
            raise DivergenceError("every training of the search diverged; narrow the ranges of tuning.fields")
        rows = []
        for trial in self.trials:
            row = asdict(trial)
            values, derivatives = row.pop("values"), row.pop("derivatives")
            row |= {f"field.{name}": value for name, value in values.items()}
            rows.append(row | {f"derivative.{name}": derivatives.get(name, math.nan) for name in values})
        return pd.DataFrame(rows)
