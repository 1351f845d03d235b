"""Every number that a text would quote, as LaTeX macros."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.exhibits._evidence import Evidence
    from resalign.exhibits._products import Macros

TITLE, KIND = "Numbers for the text, as LaTeX macros", "macros"
READS = ("values", "per_run", "prompts")
SERIES = ("table2", "table3", "table4", "table5", "figure4", "figure5")  # exhibits of series, where they are there


def make(evidence: Evidence) -> Macros:
    """One macro a number, named by model, metric and state; :mod:`resalign.exhibits._macro_names` says how."""
    from resalign.analysis.frames import final_states
    from resalign.exhibits._macro_names import macros
    from resalign.exhibits._paired import paired_tests
    from resalign.exhibits._products import Macros
    from resalign.exhibits._published import beside
    from resalign.exhibits._series import series_frame

    values = beside(final_states(evidence.main), "resalign", ["tab1"], comparable=evidence.comparable)
    series = {exhibit: series_frame(evidence, exhibit)[0] for exhibit in SERIES if evidence.has_series(exhibit)}
    return Macros(macros(values, paired_tests(evidence), series, swept=evidence.measurements.sweeps))
