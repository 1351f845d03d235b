"""Optuna's default sampler, a tree-structured Parzen estimator; its first ten values are random.

Source: Bergstra 2011, NeurIPS; Akiba 2019, arXiv 1907.10902.
"""

from __future__ import annotations

from resalign.tuning.search import Problem
from resalign.tuning.searchers._sequential import Sequential


class Search(Sequential):
    """At its defaults."""

    def __init__(self, problem: Problem) -> None:
        """Begins."""
        import optuna

        super().__init__(problem, optuna.samplers.TPESampler(seed=problem.seed))
