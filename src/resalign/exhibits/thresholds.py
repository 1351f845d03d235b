"""Safety rates over the detectors' thresholds, and whether the ranking of models depends on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.display.products import Drawn
    from resalign.exhibits._inputs import ExhibitInputs

TITLE, KIND = "Safety rates over detector thresholds", "figure"
READS, RULED = ("values", "thresholds"), True


def make(inputs: ExhibitInputs) -> Drawn:
    """Curves of every model, and Kendall's τ of each threshold's ranking with that at the configured thresholds.

    Source: Kendall 1938, τ-b; as SciPy's ``kendalltau``. NaN where all models of a state have one rate.
    """
    from resalign.analysis.frames import final_states
    from resalign.analysis.measurements import NOT_ATTACKED
    from resalign.analysis.stability import range_of, with_tau
    from resalign.display.products import Drawn
    from resalign.exhibits._drawings import thresholds_panels

    names = inputs.measurements.main()
    curves = inputs.frame("thresholds")
    curves = final_states(curves[curves["attack"].isin({NOT_ATTACKED, *names.attacks})])
    frame = with_tau(curves, final_states(inputs.main))
    titles = {}
    for (metric, attack), own in frame.groupby(["metric", "attack"], sort=False):
        after = "before" if attack == NOT_ATTACKED else f"after {names.target(str(attack))}"
        titles[str(metric), str(attack)] = f"{names.metrics[str(metric)].title} {after}; τ {range_of(own['tau'])}"
    return Drawn(frame, thresholds_panels(frame, names, inputs.settings, titles))
