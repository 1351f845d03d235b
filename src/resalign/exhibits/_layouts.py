"""Laid-out tables with published numbers under ours: the main table, variants, steps; and plain ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from resalign.analysis.frames import number
from resalign.analysis.measurements import NOT_ATTACKED, Measurements
from resalign.display.layout import Cell, Column, ResultTable, TableRow, arrowed, lay_out, with_cells_explained
from resalign.display.variants_table import lay_out_variants, state_titles, variant_rows
from resalign.exhibits._inputs import ExhibitInputs


def main_layout(frame: pd.DataFrame, inputs: ExhibitInputs, title: str, published: str) -> ResultTable:
    """The main table, and a row of published numbers under every model that has some.

    Args:
        frame: Final states, with the columns of :func:`resalign.exhibits._published.beside`.
        inputs: Settings, names, and the values that models are compared by.
        title: First words of the caption.
        published: Sentences on the published numbers, for the caption.
    """
    measurements = inputs.measurements.main()
    table = lay_out(frame, measurements, inputs.settings)
    rows: list[TableRow] = []
    for row in table.rows:
        own = frame[frame["model"] == row.model]
        values = [_only(own[(own["attack"] == c.attack) & (own["metric"] == c.metric)]) for c in table.columns]
        rows += [row, *_published(row, values, measurements)]
    return with_cells_explained(replace(table, rows=tuple(rows)), frame, published, title=title)


def with_published_rows(table: ResultTable, frame: pd.DataFrame, measurements: Measurements) -> ResultTable:
    """A table of variants with published numbers under every row that has some.

    Args:
        table: From :func:`resalign.display.variants_table.lay_out_variants`.
        frame: Its rows, with the columns of published numbers.
        measurements: Names.
    """
    frame = frame.assign(state=state_titles(frame, measurements))
    rows: list[TableRow] = []
    for row, (_, _, _, own) in zip(table.rows, variant_rows(frame), strict=True):
        values = [_only(own[(own["state"] == c.group) & (own["metric"] == c.metric)]) for c in table.columns]
        rows += [row, *_published(row, values, measurements)]
    return replace(table, rows=tuple(rows))


def models_layout(frame: pd.DataFrame, measurements: Measurements, caption: str) -> ResultTable:
    """One row a model, one column a state and metric."""
    frame = frame.assign(series="", variant="")
    return lay_out_variants(frame, measurements, caption)


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
    rows: list[TableRow] = []
    order = [NOT_ATTACKED, *measurements.attacks]
    states = sorted(
        frame[["attack", "steps"]].drop_duplicates().itertuples(index=False, name=None),
        key=lambda state: (order.index(state[0]), state[1]),
    )
    for attack, steps in states:
        here = frame[(frame["attack"] == attack) & (frame["steps"] == steps)]
        found = [here[(here["model"] == model) & (here["metric"] == metric)] for model in models for metric in metrics]
        values = [_only(own) for own in found]
        cells = (v if v is None else Cell.of(v, measurements.metrics[str(v["metric"])]) for v in values)
        title = "Before" if attack == NOT_ATTACKED else f"{measurements.target(attack)}, {steps:,} steps"
        row = TableRow("", title, False, tuple(cells))
        rows += [row, *_published(row, values, measurements)]
    return with_cells_explained(ResultTable(tuple(columns), tuple(rows), caption), frame)


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
        TableRow(str(row[first]), str(row[first]), False, tuple(Cell(_text(row[name])) for name in others))
        for row in frame.to_dict("records")
    )
    return ResultTable(columns, rows, caption)


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}".replace("-", "−")
    return str(value)


def _only(rows: pd.DataFrame) -> pd.Series | None:
    """The one row of a state and metric, if it was measured."""
    return None if rows.empty else rows.iloc[0]


def _published(row: TableRow, values: Sequence[pd.Series | None], measurements: Measurements) -> list[TableRow]:
    """A row of the published numbers of the same states, where there are some."""
    cells = tuple(None if value is None else _published_cell(value, measurements) for value in values)
    is_other = any(value is not None and value.get("published_world") == "another" for value in values)
    title = f"{row.title}, published" + (" (another world)" if is_other else "")
    return [TableRow(row.model, title, False, cells)] if any(cells) else []


def _published_cell(value: pd.Series, measurements: Measurements) -> Cell | None:
    """A published number, with the difference where both are of one setting."""
    if math.isnan(value.get("published", math.nan)):
        return None
    info = measurements.metrics[str(value["metric"])]
    difference = float(value["difference"])
    said = "" if math.isnan(difference) else f" ({'+' if difference > 0 else ''}{number(difference, info)})"
    return Cell(f"{number(float(value['published']), info)}{said}")
