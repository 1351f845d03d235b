"""Every number that a text would quote, as LaTeX macros."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resalign.jobs import series

if TYPE_CHECKING:
    from resalign.display.products import Macros
    from resalign.exhibits._inputs import ExhibitInputs

TITLE, KIND = "Numbers for the text, as LaTeX macros", "macros"
READS = ("values", "per_run", "prompts")
SERIES = tuple(series.SERIES)  # exhibits of series, where they are there


def make(inputs: ExhibitInputs) -> Macros:
    """One macro a number, named by model, metric and state; :mod:`resalign.exhibits._macro_names` defines them."""
    from resalign.analysis.frames import final_states
    from resalign.display.products import Macros
    from resalign.exhibits._macro_names import macros
    from resalign.exhibits._paired import paired_tests
    from resalign.exhibits._published import beside
    from resalign.exhibits._series import series_frame

    values = beside(final_states(inputs.main), "resalign", ["tab1"], comparable=inputs.comparable)
    frames = {exhibit: series_frame(inputs, exhibit)[0] for exhibit in SERIES if inputs.has_series(exhibit)}
    return Macros(macros(values, paired_tests(inputs), frames, swept=inputs.measurements.sweeps))
