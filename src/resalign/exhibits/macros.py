"""Every number that a text would quote, as LaTeX macros."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.paper.evidence import Evidence
    from resalign.paper.products import Macros

TITLE, KIND = "Numbers for the text, as LaTeX macros", "macros"
READS = ("values", "per_run", "prompts")


def make(evidence: Evidence) -> Macros:
    """One macro a number, named by model, metric and state; :mod:`resalign.paper.macro_names` says how."""
    from resalign.paper.macro_names import macros
    from resalign.paper.paired import paired_tests
    from resalign.paper.products import Macros
    from resalign.report.tables import final_states

    return Macros(macros(final_states(evidence.main), paired_tests(evidence)))
