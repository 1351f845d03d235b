"""Population-based training: copies of the best go on with perturbed values.

Source: Jaderberg 2017, arXiv 1711.09846: truncation selection, and perturbation by 0.8 or 1.2.
"""

from __future__ import annotations

from resalign.tuning.searchers._population import Member, Population
from resalign.tuning.training import Values


class Search(Population):
    """Who has been copied from nobody keeps its values."""

    def changed(self, member: Member, begin: int) -> Values:
        """Perturbs a copy's values."""
        if member.copied:
            member.values = self.perturbed(member.values, list(member.values))
        return {}
