"""Laid-out tables: mean ± std over seeds with its interval, variants in rows, published numbers under ours."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from resalign.analysis.frames import interval_text, number
from resalign.analysis.measurements import NOT_ATTACKED, Measurements
from resalign.display.layout import Cell, Column, ResultTable, Row, arrowed, lay_out
from resalign.display.variants_table import lay_out_variants, state_titles, variant_rows
from resalign.exhibits._evidence import Evidence
from resalign.exhibits._paired import interval_of


def main_layout(frame: pd.DataFrame, evidence: Evidence, said: str) -> ResultTable:
    """The main table with the spread over seeds, and a row of published numbers under every model that has some.

    Args:
        frame: Final states, with the columns of :func:`resalign.exhibits._published.beside`.
        evidence: Names, settings, and the frames that models are compared by.
        said: Of the published numbers, for the caption.
    """
    measurements = evidence.measurements.main()
    table = lay_out(frame, measurements, evidence.settings, functools.partial(interval_of, evidence))
    rows: list[Row] = []
    for row in table.rows:
        own = frame[frame["model"] == row.model]
        found = [own[(own["attack"] == c.attack) & (own["metric"] == c.metric)] for c in table.columns]
        rows += _with_published(row, [_only(values) for values in found], measurements)
    return replace(table, rows=tuple(rows), caption=" ".join(filter(None, (table.caption, said_of_cells(frame), said))))


def variants_layout(frame: pd.DataFrame, measurements: Measurements, caption: str) -> ResultTable:
    """:func:`lay_out_variants` with the spread over seeds, and published numbers under every row that has some.

    Args:
        frame: From ``Evidence.series``, with the columns of published numbers.
        measurements: Names.
        caption: What the table shows.
    """
    table = lay_out_variants(frame, measurements, f"{caption} {said_of_cells(frame)}")
    frame = frame.assign(state=state_titles(frame, measurements))
    rows: list[Row] = []
    for row, (_, _, _, own) in zip(table.rows, variant_rows(frame), strict=True):
        found = [own[(own["state"] == column.group) & (own["metric"] == column.metric)] for column in table.columns]
        rows += _with_published(row, [_only(values) for values in found], measurements)
    return replace(table, rows=tuple(rows))


def models_layout(frame: pd.DataFrame, measurements: Measurements, caption: str) -> ResultTable:
    """One row a model, one column a state and metric."""
    return variants_layout(frame.assign(series="", variant=""), measurements, caption)


def steps_layout(frame: pd.DataFrame, measurements: Measurements, caption: str) -> ResultTable:
    """One row a state (attack and steps), one column a model and metric.

    Args:
        frame: Values at all steps, with the columns of published numbers.
        measurements: Names.
        caption: What the table shows.
    """
    models = [model for model in measurements.models if model in set(frame["model"])]
    metrics = [metric for metric in measurements.metrics if metric in set(frame["metric"])]
    columns = [Column(measurements.title(o), arrowed(measurements, m), "", m) for o in models for m in metrics]
    rows: list[Row] = []
    order = [NOT_ATTACKED, *measurements.attacks]
    states = sorted(
        frame[["attack", "steps"]].drop_duplicates().itertuples(index=False, name=None),
        key=lambda state: (order.index(state[0]), state[1]),
    )
    for attack, steps in states:
        here = frame[(frame["attack"] == attack) & (frame["steps"] == steps)]
        found = [here[(here["model"] == model) & (here["metric"] == metric)] for model in models for metric in metrics]
        values = [_only(own) for own in found]
        title = "Before" if attack == NOT_ATTACKED else f"{measurements.target(attack)}, {steps:,} steps"
        row = Row("", title, False, tuple(v if v is None else _cell(v, measurements) for v in values))
        rows += _with_published(row, values, measurements)
    return ResultTable(tuple(columns), tuple(rows), f"{caption} {said_of_cells(frame)}")


def plain_layout(frame: pd.DataFrame, headers: Mapping[str, str], caption: str) -> ResultTable:
    """A table of texts and numbers as they are: the first column names the rows.

    Args:
        frame: One row a row.
        headers: Column of the frame to its header, in order.
        caption: What the table shows.
    """
    first, *others = headers
    columns = tuple(Column("", headers[name], "", name) for name in others)
    rows = tuple(
        Row(str(row[first]), str(row[first]), False, tuple(Cell(_text(row[name]), "") for name in others))
        for row in frame.to_dict("records")
    )
    return ResultTable(columns, rows, caption)


def said_of_cells(frame: pd.DataFrame) -> str:
    """What ± is, and how many seeds are behind it."""
    low, high = int(frame["seeds"].min()), int(frame["seeds"].max())
    count = f"{low}" if low == high else f"{low} to {high}"
    images = f"{frame['n'].min():,}" if frame["n"].nunique() == 1 else f"{frame['n'].min():,} to {frame['n'].max():,}"
    return (
        f"± is the standard deviation over training seeds ({count}; none with one), intervals are in brackets, and "
        f"n = {images} images."
    )


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}".replace("-", "−")
    return str(value)


def _only(rows: pd.DataFrame) -> pd.Series | None:
    """The one row of a state and metric, if it was measured."""
    return None if rows.empty else rows.iloc[0]


def _with_published(row: Row, values: Sequence[pd.Series | None], measurements: Measurements) -> list[Row]:
    """The row with ± in its cells, and the published numbers of the same states, where there are some."""
    cells = tuple(
        cell if cell is None or found is None else _spread(cell, found, measurements)
        for cell, found in zip(row.cells, values, strict=True)
    )
    below = tuple(None if found is None else _published(found, measurements) for found in values)
    is_other = any(found is not None and found.get("published_world") == "another" for found in values)
    title = f"{row.title}, published" + (" (another world)" if is_other else "")
    beside = [Row(row.model, title, False, below)] if any(below) else []
    return [replace(row, cells=cells), *beside]


def _cell(found: pd.Series, measurements: Measurements) -> Cell:
    """A value with its interval."""
    info = measurements.metrics[str(found["metric"])]
    return Cell(number(float(found["mean"]), info), interval_text(float(found["low"]), float(found["high"]), info))


def _spread(cell: Cell, found: pd.Series, measurements: Measurements) -> Cell:
    """The cell with ± its standard deviation over seeds, where there are several."""
    if math.isnan(found["std"]):
        return cell
    info = measurements.metrics[str(found["metric"])]
    return replace(cell, value=f"{cell.value} ± {number(float(found['std']), info)}")


def _published(found: pd.Series, measurements: Measurements) -> Cell | None:
    """A published number, with the difference where both are of one world."""
    if math.isnan(found.get("published", math.nan)):
        return None
    info = measurements.metrics[str(found["metric"])]
    difference = float(found["difference"])
    said = "" if math.isnan(difference) else f"({'+' if difference > 0 else ''}{number(difference, info)})"
    return Cell(number(float(found["published"]), info), said)
