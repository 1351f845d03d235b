"""Exhibits of a series of variants, from an ablation or from sweeps."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from resalign.analysis.measurements import NOT_ATTACKED, Measurements
from resalign.exhibits._drawings import variants_figure
from resalign.exhibits._evidence import Evidence
from resalign.exhibits._layouts import variants_layout
from resalign.exhibits._products import Drawn, Table
from resalign.exhibits._published import beside, said


@dataclass(frozen=True)
class Shown:
    """What an exhibit shows of its series.

    Attributes:
        groups: Of metrics, the safety ones in every state.
        published: Table of published.csv in the ResAlign paper, or ''.
        method: Of fine-tuning in all of the published table, or ''; series of others are not compared with it.
    """

    groups: tuple[str, ...]
    published: str = ""
    method: str = ""


SHOWN = {
    "table2": Shown(("safety", "utility", "learnability"), "tab2"),
    "table3": Shown(("safety", "utility"), "tab3"),
    "table4": Shown(("safety", "learnability"), "tab4", "lora"),  # "LoRA", says the paper's text
    "table5": Shown(("safety", "learnability"), "tab5", "lora"),
    "figure4": Shown(("safety",)),
    "figure5": Shown(("safety", "utility")),
}


def series_table(evidence: Evidence, exhibit: str, title: str) -> Table:
    """A table of every variant.

    Args:
        evidence: With an ablation or sweeps called like the exhibit.
        exhibit: Its name.
        title: First words of the caption.
    """
    shown = SHOWN[exhibit]
    frame, names = series_frame(evidence, exhibit)
    about = said(frame, "resalign", [shown.published], another_world=evidence.another_world)
    reasons = {str(series): _not_as_published(evidence, str(series), shown) for series in frame["series"].unique()}
    if evidence.comparable:
        about += "".join(f" Of {series} no difference is given: {why}." for series, why in reasons.items() if why)
    return Table(frame, variants_layout(frame, names, " ".join(filter(None, (f"{title}.", about)))), "Variant")


def series_drawing(evidence: Evidence, exhibit: str) -> Drawn:
    """A figure over every variant: the first metric of each group, after attacks where it was measured there.

    Args:
        evidence: With an ablation or sweeps called like the exhibit.
        exhibit: Its name.
    """
    frame, names = series_frame(evidence, exhibit)
    metrics = [metric for group in SHOWN[exhibit].groups if (metric := names.headline(group)) is not None]
    frame = frame[frame["metric"].isin(metrics)].reset_index(drop=True)
    axes = {str(series): str(evidence.series_of[series]["axis"]) for series in frame["series"].unique()}
    return Drawn(frame, variants_figure(frame, names, evidence.settings, metrics, axes))


def series_frame(evidence: Evidence, exhibit: str) -> tuple[pd.DataFrame, Measurements]:
    """The rows of an exhibit, with published numbers where it has some, and the names of all that is in them."""
    shown = SHOWN[exhibit]
    found = evidence.series(exhibit)
    names = evidence.naming(found)
    frame = found[
        found["metric"].isin([metric for metric, info in names.metrics.items() if info.group in shown.groups])
    ]
    # A model that no variant changes has one state before fine-tuning, the same in all: it says nothing of variants.
    attacked = frame[frame["attack"] != NOT_ATTACKED]
    if (
        len(attacked)
        and frame[frame["attack"] == NOT_ATTACKED].groupby(["model", "metric"])["mean"].nunique().max() == 1
    ):
        frame = attacked
    frame = frame.reset_index(drop=True)
    if shown.published:
        alike = frame["series"].map(lambda series: not _not_as_published(evidence, series, shown))
        frame = beside(frame, "resalign", [shown.published], comparable=alike & evidence.comparable)
    return frame, names


def _not_as_published(evidence: Evidence, series: str, shown: Shown) -> str:
    """Why a series is not held against the published table, or ''."""
    about = evidence.series_of[series]
    if shown.method and set(about["methods"]) != {shown.method}:
        return f"the published fine-tuning is {shown.method}"
    return f"it has other {', '.join(about['other'])} than the experiment" if about["other"] else ""
