"""Random search: every value is drawn uniformly in its logarithm.

Source: Bergstra 2012, Journal of Machine Learning Research 13.
"""

from __future__ import annotations

from resalign.tuning.search import Problem
from resalign.tuning.searchers._sequential import Sequential


class Search(Sequential):
    """Optuna's sampler of that name."""

    def __init__(self, problem: Problem) -> None:
        """Begins."""
        import optuna

        super().__init__(problem, optuna.samplers.RandomSampler(seed=problem.seed))
