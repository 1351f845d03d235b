"""Random search: every value is drawn uniformly in its logarithm.

Source: Bergstra 2012, Journal of Machine Learning Research 13.
"""

from __future__ import annotations

from resalign.config.tuning import Costs, TuningConfig
from resalign.tensors.seeds import derive_seed
from resalign.tuning.search import Problem
from resalign.tuning.searchers._sequential import Sequential, trainings


def rounds(config: TuningConfig, costs: Costs) -> int:
    """Trainings within the budget."""
    return trainings(config, costs)


class Search(Sequential):
    """Optuna's sampler of that name."""

    def __init__(self, problem: Problem) -> None:
        """Begins."""
        import optuna

        seed = derive_seed("tuning", "random", problem.seed) % 2**32
        super().__init__(problem, optuna.samplers.RandomSampler(seed=seed))
