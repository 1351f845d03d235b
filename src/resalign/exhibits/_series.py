"""Exhibits of a series of variants, from an ablation or from sweeps."""

from __future__ import annotations

import pandas as pd

from resalign.analysis.measurements import NOT_ATTACKED, Measurements
from resalign.display.products import Drawn, Table
from resalign.display.variants_table import lay_out_variants, variants_panels
from resalign.exhibits._inputs import ExhibitInputs
from resalign.exhibits._layouts import with_published_rows
from resalign.exhibits._published import beside, said
from resalign.jobs.series import SERIES, SeriesExhibit


def make(inputs: ExhibitInputs, name: str) -> Table | Drawn:
    """The exhibit of the table of series.

    Args:
        inputs: With an ablation or sweeps called like the exhibit.
        name: Key of :data:`resalign.jobs.series.SERIES`.
    """
    return series_table(inputs, name) if SERIES[name].KIND == "table" else series_drawing(inputs, name)


def series_table(inputs: ExhibitInputs, name: str) -> Table:
    """A table of every variant."""
    exhibit = SERIES[name]
    frame, names = series_frame(inputs, name)
    sentences = [f"{exhibit.TITLE}."]
    sentences.append(said(frame, "resalign", [exhibit.published], another_world=inputs.another_world))
    if inputs.comparable:
        reasons = {series: _not_as_published(inputs, str(series), exhibit) for series in frame["series"].unique()}
        sentences += [f"No difference is given for {series}: {why}." for series, why in reasons.items() if why]
    layout = lay_out_variants(frame, names, " ".join(filter(None, sentences)))
    return Table(frame, with_published_rows(layout, frame, names), "Variant")


def series_drawing(inputs: ExhibitInputs, name: str) -> Drawn:
    """A figure over every variant: the first metric of each group, after attacks where it was measured there."""
    frame, names = series_frame(inputs, name)
    metrics = [metric for group in SERIES[name].groups if (metric := names.headline(group)) is not None]
    frame = frame[frame["metric"].isin(metrics)].reset_index(drop=True)
    axes = {str(series): inputs.words.series[series].axis for series in frame["series"].unique()}
    return Drawn(frame, variants_panels(frame, names, inputs.settings, metrics, axes))


def series_frame(inputs: ExhibitInputs, name: str) -> tuple[pd.DataFrame, Measurements]:
    """The rows of an exhibit, with published numbers where it has some, and the names of all that is in them."""
    exhibit = SERIES[name]
    rows = inputs.series(name)
    names = inputs.naming(rows)
    shown = [metric for metric, info in names.metrics.items() if info.group in exhibit.groups]
    frame = rows[rows["metric"].isin(shown)]
    # A model that no variant changes has one state before fine-tuning, the same in all variants.
    attacked, before = frame[frame["attack"] != NOT_ATTACKED], frame[frame["attack"] == NOT_ATTACKED]
    if len(attacked) and before.groupby(["model", "metric"])["mean"].nunique().max() == 1:
        frame = attacked
    frame = frame.reset_index(drop=True)
    if exhibit.published:
        alike = frame["series"].map(lambda series: not _not_as_published(inputs, series, exhibit))
        frame = beside(frame, "resalign", [exhibit.published], comparable=alike & inputs.comparable)
    return frame, names


def _not_as_published(inputs: ExhibitInputs, series: str, exhibit: SeriesExhibit) -> str:
    """Why a series is not held against the published table, or ''."""
    about = inputs.words.series[series]
    if exhibit.method and set(about.methods) != {exhibit.method}:
        return f"the published fine-tuning is {exhibit.method}"
    return f"it has other {', '.join(about.other)} than the experiment" if about.other else ""
