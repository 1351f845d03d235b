"""The files of a report."""

from __future__ import annotations

from collections.abc import Iterable

PAGE = "report.html"
TABLE, LATEX = "tables/table1.csv", "tables/table1.tex"
STEPS, PER_RUN, PAIRED = "tables/steps.csv", "tables/per_run.csv", "tables/paired.csv"
SURVIVAL, PARETO = "tables/survival.csv", "tables/pareto.csv"
ALWAYS = (PAGE, TABLE, LATEX, STEPS, PER_RUN, PAIRED, SURVIVAL, PARETO)
WORDS = "attacks.md"  # where there are sweeps


def sweep_files(label: str) -> tuple[str, str, str]:
    """A sweep's values, their mean and worst, and its LaTeX."""
    stem = f"tables/sweep-{label}"
    return f"{stem}.csv", f"{stem}-summary.csv", f"{stem}.tex"


def files(sweeps: Iterable[str]) -> tuple[str, ...]:
    """The files of a report: outputs of its rule, so that each can be asked for by its name.

    Figures depend on what was measured: their folder is an output.

    Args:
        sweeps: Labels of the experiment's sweeps.
    """
    swept = [file for label in sweeps for file in sweep_files(label)]
    return (*ALWAYS, *swept, *([WORDS] if swept else []))
