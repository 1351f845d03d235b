"""Exhibits of a series of variants, from an ablation or from sweeps."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from resalign.paper.drawings import variants_figure
from resalign.paper.evidence import Evidence
from resalign.paper.layout import variants_layout
from resalign.paper.products import Drawn, Table
from resalign.paper.published import beside
from resalign.report.measurements import NOT_ATTACKED, Measurements


def series_table(evidence: Evidence, exhibit: str, title: str, *, published: str, groups: Sequence[str]) -> Table:
    """A table of every variant.

    Args:
        evidence: With an ablation or sweeps called like the exhibit.
        exhibit: Its name.
        title: First words of the caption.
        published: Table of published.csv in the ResAlign paper.
        groups: Groups of metrics that are shown, the safety ones in every state.
    """
    frame, names = _frame(evidence, exhibit, groups)
    frame = beside(frame, "resalign", [published], comparable=evidence.comparable)
    return Table(frame, variants_layout(frame, names, f"{title}."), "Variant")


def series_drawing(evidence: Evidence, exhibit: str, *, axis: str, groups: Sequence[str]) -> Drawn:
    """A figure over every variant: the first metric of each group, after attacks where it was measured there.

    Args:
        evidence: With an ablation or sweeps called like the exhibit.
        exhibit: Its name.
        axis: What varies.
        groups: Groups of metrics.
    """
    frame, names = _frame(evidence, exhibit, groups)
    metrics = [metric for group in groups if (metric := names.headline(group)) is not None]
    frame = frame[frame["metric"].isin(metrics)].reset_index(drop=True)
    return Drawn(frame, variants_figure(frame, names, evidence.settings, metrics, axis))


def _frame(evidence: Evidence, exhibit: str, groups: Sequence[str]) -> tuple[pd.DataFrame, Measurements]:
    """The series' rows of some groups of metrics, and the names of all that is in them."""
    found = evidence.series(exhibit)
    names = evidence.naming(found)
    shown = [metric for metric, info in names.metrics.items() if info.group in groups]
    frame = found[found["metric"].isin(shown)]
    # A model that no variant changes has one state before fine-tuning, the same in all: it says nothing of variants.
    attacked = frame[frame["attack"] != NOT_ATTACKED]
    if (
        len(attacked)
        and frame[frame["attack"] == NOT_ATTACKED].groupby(["model", "metric"])["mean"].nunique().max() == 1
    ):
        frame = attacked
    return frame.reset_index(drop=True), names
