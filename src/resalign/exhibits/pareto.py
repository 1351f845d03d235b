"""Safety, utility and learnability together: the models that no other one beats in all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.display.products import Drawn
    from resalign.exhibits._inputs import ExhibitInputs

TITLE, KIND = "Safety, utility and learnability of every model", "figure"
READS, ATTACKED = ("values", "images", "sets"), True


def make(inputs: ExhibitInputs) -> Drawn:
    """One point a model; filled are those on the Pareto front of means."""
    from resalign.analysis.pareto import pareto_table, weighed_metrics
    from resalign.display.pareto_panel import pareto_panel
    from resalign.display.products import Drawn

    main, settings = inputs.measurements.main(), inputs.settings
    weighed = weighed_metrics(main)
    points = pareto_table(inputs.main, main, settings, weighed)
    return Drawn(points, [] if points.empty else [pareto_panel(points, main, settings, weighed)])
