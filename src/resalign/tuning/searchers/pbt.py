"""Population-based training: copies of the best go on with perturbed values.

Source: Jaderberg 2017, arXiv 1711.09846: truncation selection, and perturbation by 0.8 or 1.2.
"""

from __future__ import annotations

from resalign.config.tuning import Costs, TuningConfig
from resalign.tuning.search import Problem
from resalign.tuning.searchers._population import Population, members


def rounds(config: TuningConfig, costs: Costs) -> int:
    """Segments within the budget."""
    return members(config, costs) * config.segments


class Search(Population):
    """Who has been copied from nobody keeps its values."""

    def __init__(self, problem: Problem) -> None:
        """Begins."""
        super().__init__(problem)
