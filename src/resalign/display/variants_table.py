"""Lays out the variants of ablations and sweeps as one table and one figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from resalign.analysis.measurements import NOT_ATTACKED, Measurements
from resalign.config.report import ReportConfig
from resalign.display.drawing import Panel
from resalign.display.layout import (
    Cell,
    Column,
    ResultTable,
    TableRow,
    arrowed,
    bold_words,
    column_cells,
    with_cells_explained,
)
from resalign.display.panels import variants_panel

VARIANT = ["series", "variant"]
BEFORE = "Before fine-tuning"


def state_titles(frame: pd.DataFrame, measurements: Measurements) -> pd.Series:
    """The title of each row's state over variants: before fine-tuning, or after it.

    If every variant has one fine-tuning, they share one state, although a sweep's variants are separate attacks. If a
    variant has several attacks, each is a state.

    Args:
        frame: Columns series, variant, model, attack, dataset, steps, metric.
        measurements: Titles.
    """
    attacked = frame[frame["attack"] != NOT_ATTACKED]
    several = attacked.duplicated([*VARIANT, "model", "metric"]).any()
    titles = pd.Series(BEFORE, index=frame.index)
    for _, rows in attacked.groupby(attacked["attack"] if several else lambda _: 0, sort=False):
        titles[rows.index] = _after(rows, measurements)
    return titles


def _after(rows: pd.DataFrame, measurements: Measurements) -> str:
    if rows["attack"].nunique() > 1 or rows["dataset"].nunique() > 1:
        return "After fine-tuning"
    steps = set(rows["steps"])
    how = f"{next(iter(steps)):,} steps" if len(steps) == 1 else "fine-tuning"
    return f"After {how} on {measurements.target(str(rows['attack'].iloc[0]))}"


def variant_rows(frame: pd.DataFrame) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """(series, variant, model, their rows of the frame) in the frame's order, a variant's models together."""
    for (series, variant), group in frame.groupby(VARIANT, sort=False):
        for model, rows in group.groupby("model", sort=False):
            yield str(series), str(variant), str(model), rows


def lay_out_variants(frame: pd.DataFrame, measurements: Measurements, caption: str) -> ResultTable:
    """One row per variant and model, one column per state and metric, in the order of :func:`variant_rows`.

    The best models of a variant are bold, or the best variants of a series if there is one model: those whose intervals
    overlap the best one's; see :func:`resalign.display.layout.shown_best`.

    Args:
        frame: Columns series, variant, model, attack, dataset, steps, metric, mean, std, low, high, n, seeds.
        measurements: Names.
        caption: What the table shows.
    """
    columns = _columns(frame, measurements)
    cells: list[dict[tuple[str, str, str], Cell]] = [_cells(values, measurements, c.metric) for c, values in columns]
    many_models, many_series = frame["model"].nunique() > 1, frame["series"].nunique() > 1
    rows = []
    for series, variant, model, _ in variant_rows(frame):
        parts = (series if many_series else "", variant, measurements.title(model) if many_models else "")
        title = ", ".join(filter(None, parts)) or measurements.title(model)
        row_cells = tuple(column.get((series, variant, model)) for column in cells)
        rows.append(TableRow(model, title, model == measurements.base, row_cells))
    contenders = (
        f"models of a variant other than {measurements.title(measurements.base)}" if many_models else "variants"
    )
    bold = bold_words(contenders, paired=False)
    full_caption = f"{caption} {bold[0].upper()}{bold[1:]}"
    return with_cells_explained(ResultTable(tuple(column for column, _ in columns), tuple(rows), full_caption), frame)


def variants_panels(
    frame: pd.DataFrame,
    measurements: Measurements,
    settings: ReportConfig,
    metrics: Sequence[str],
    axes_titles: Mapping[str, str],
) -> list[Panel]:
    """Metrics over variants in the order given: one panel a metric, series and state, one line a model.

    Args:
        frame: As :func:`lay_out_variants` takes it.
        measurements: Names.
        settings: Sizes and colours.
        metrics: What is drawn; those that a state has.
        axes_titles: What varies, by series.
    """
    points = frame.assign(state=state_titles(frame, measurements))
    panels = []
    for metric in metrics:
        for (series, state), rows in points[points["metric"] == metric].groupby(["series", "state"], sort=False):
            title = f"{measurements.metrics[metric].title} {str(state)[0].lower()}{str(state)[1:]}"
            axis = axes_titles[str(series)]
            panels.append(
                variants_panel(rows, measurements, settings, metric, title=title, axis_title=axis, scaled_to=points)
            )
    return panels


def _columns(frame: pd.DataFrame, measurements: Measurements) -> list[tuple[Column, pd.DataFrame]]:
    """Every state and metric that a row can have, with its rows: before, then after each attack."""
    titles = state_titles(frame, measurements)
    order = [NOT_ATTACKED, *measurements.attacks]
    places = frame["attack"].map({attack: place for place, attack in enumerate(order)})
    columns = []
    for title in places.groupby(titles).min().sort_values(kind="stable").index:
        of_state = frame[titles == title]
        for metric in measurements.metrics:
            if len(values := of_state[of_state["metric"] == metric]):
                attack = str(values["attack"].iloc[0])
                columns.append((Column(title, arrowed(measurements, metric), "", metric, attack), values))
    return columns


def _cells(values: pd.DataFrame, measurements: Measurements, metric: str) -> dict[tuple[str, str, str], Cell]:
    """A column's cells by series, variant and model."""
    info = measurements.metrics[metric]
    if values["model"].nunique() > 1:
        return {
            (str(series), str(variant), model): cell
            for (series, variant), group in values.groupby(VARIANT, sort=False)
            for model, cell in column_cells(group, info, base=measurements.base).items()
        }
    model = str(values["model"].iloc[0])
    return {
        (str(series), variant, model): cell
        for series, group in values.groupby("series", sort=False)
        for variant, cell in column_cells(group.assign(model=group["variant"]), info, base=None).items()
    }
