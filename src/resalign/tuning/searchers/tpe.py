"""Optuna's default sampler, a tree-structured Parzen estimator.

Source: Bergstra 2011, NeurIPS; Akiba 2019, arXiv 1907.10902.
"""

from __future__ import annotations

from resalign.config.strict import ConfigError
from resalign.config.tuning import Costs, TuningConfig
from resalign.tensors.seeds import derive_seed
from resalign.tuning.search import Problem
from resalign.tuning.searchers._sequential import Sequential, trainings

STARTUP = 10  # Optuna's default: before so many trials it samples at random


def rounds(config: TuningConfig, costs: Costs) -> int:
    """Trainings within the budget.

    Raises:
        ConfigError: If all of them would be drawn at random.
    """
    found = trainings(config, costs)
    if found <= STARTUP:
        raise ConfigError(
            f"tuning.budget {config.budget} allows {found} trainings, and tpe draws its first {STARTUP} at random; "
            "raise the budget, or leave tpe out of searchers"
        )
    return found


class Search(Sequential):
    """At its defaults."""

    def __init__(self, problem: Problem) -> None:
        """Begins."""
        import optuna

        seed = derive_seed("tuning", "tpe", problem.seed) % 2**32
        super().__init__(problem, optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP))
