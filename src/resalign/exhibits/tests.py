"""Paired tests of every model against one, corrected for their number."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.display.products import Table
    from resalign.exhibits._inputs import ExhibitInputs

TITLE, KIND = "Paired tests with Holm's correction", "table"
READS = ("values", "per_run", "prompts")
CHOSEN = (
    "was chosen for its lowest rate after attacks, on the data that are tested here: "
    "its advantage is overstated, and p does not allow for the choice."
)


def make(inputs: ExhibitInputs) -> Table:
    """Differences of every model from ResAlign (or the most resilient model), metric by metric and state by state."""
    from resalign.display.products import Table
    from resalign.exhibits._layouts import plain_layout
    from resalign.exhibits._paired import conclusion, paired_tests

    tests = paired_tests(inputs)
    said = conclusion(tests, inputs.settings.confidence)
    headers = {
        **{"metric": "Metric", "attack": "Attack", "model": "Model", "against": "Against", "difference": "Difference"},
        **{"low": "Low", "high": "High", "p": "p", "p_corrected": "p (Holm)", "significant": "Significant"},
        **{"n_prompts": "Prompts", "n_seeds": "Seeds", "test": "Test"},
    }
    chosen = "" if inputs.has_resalign else f" {inputs.measurements.title(inputs.focus)} {CHOSEN}"
    caption = f"{TITLE}: model minus the one that it is held against.{chosen} {said}"
    return Table(tests.assign(conclusion=said), plain_layout(tests, headers, caption), headers["metric"])
