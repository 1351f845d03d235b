"""The main table, laid out as the paper's Table 1: before fine-tuning, after each benign data set, benign generation.

Source: ResAlign, Table 1. Deviation: each value has its interval, learnability is shown beside every rate after
fine-tuning, and benign generation after fine-tuning too if it was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import pandas as pd

from resalign.analysis.frames import final_states, interval_text, number, paired_difference, select, targets
from resalign.analysis.measurements import NOT_ATTACKED, Measurements, MetricInfo
from resalign.config.report import ReportConfig
from resalign.display.values import relapse_note

OWN_VALUES = "of two training seeds their own values are in parentheses"
Apart = Callable[[str, str], bool]  # whether the best and another model are told apart


@dataclass(frozen=True)
class Column:
    """A column: the metric in one state.

    Attributes:
        group: Header over neighbouring columns.
        title: The metric, with an arrow in the better direction.
        detail: The state, if the group does not name it.
        metric: The metric's name.
        attack: Its label; ``none`` before fine-tuning.
    """

    group: str
    title: str
    detail: str
    metric: str
    attack: str = NOT_ATTACKED


@dataclass(frozen=True)
class Cell:
    """A value as shown, such as ``0.12``, ``[0.08, 0.17]`` and ``0.03``.

    Attributes:
        value: The mean.
        interval: Its interval; empty if there is none.
        spread: Its standard deviation over training seeds; empty with one seed, or two.
        own: With two training seeds their own values, such as ``0.02, 0.61``; empty otherwise.
        best: Whether it is bold.
    """

    value: str
    interval: str = ""
    spread: str = ""
    own: str = ""
    best: bool = False

    @classmethod
    def of(cls, row: Mapping[Any, Any] | pd.Series, info: MetricInfo, *, best: bool = False) -> Cell:
        """The cell of a row with mean, low, high and std."""
        mean, std, low, high = (float(row[name]) for name in ("mean", "std", "low", "high"))
        spread, own = "" if math.isnan(std) else number(std, info), ""
        if row["seeds"] == 2:
            spread, own = "", ", ".join(number(float(row[end]), info) for end in ("least", "most"))
        return cls(number(mean, info), interval_text(low, high, info), spread, own, best)


@dataclass(frozen=True)
class TableRow:
    """A model's cells, one per column; None if it was not measured."""

    model: str
    title: str
    is_base: bool
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class ResultTable:
    """A laid-out table, which LaTeX and the page render alike.

    ``short_caption`` is for the table without intervals; empty where ``caption`` fits that too.
    """

    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    caption: str
    short_caption: str = ""

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Header and width of each group of columns."""
        return [(title, len(list(members))) for title, members in groupby(column.group for column in self.columns)]


def lay_out(table: pd.DataFrame, measurements: Measurements, settings: ReportConfig) -> ResultTable:
    """Arranges a long table as the main table; intermediate steps are left out.

    Args:
        table: From :func:`resalign.analysis.frames.long_table`.
        measurements: Names, titles and metrics, and the values that models are compared by.
        settings: For the caption.
    """
    final = final_states(table)
    columns = _columns(final, measurements)
    cells = []
    for column in columns:
        rows = select(final, metric=column.metric, attack=column.attack)
        apart = paired_apart(measurements, settings, column.metric, column.attack, int(rows["steps"].iloc[0]))
        cells.append(column_cells(rows, measurements.metrics[column.metric], base=measurements.base, apart=apart))
    caption = _caption(final, measurements, settings)
    return ResultTable(tuple(columns), table_rows(cells, measurements), caption)


def split(table: ResultTable, measurements: Measurements) -> tuple[ResultTable, ResultTable]:
    """The main table in two: safety and one utility in each state, and every other metric.

    Columns of the first are grouped by state, those of the second are in the order of the metrics.

    Args:
        table: From :func:`lay_out`.
        measurements: Names and titles.
    """
    states, metrics = [NOT_ATTACKED, *measurements.attacks], list(measurements.metrics)
    groups = {c.attack: c.group for c in table.columns if measurements.metrics[c.metric].group != "utility"}
    first = [measurements.headline(group) for group in ("safety", "utility")]
    places = range(len(table.columns))
    state = {place: states.index(table.columns[place].attack) for place in places}
    metric = {place: metrics.index(table.columns[place].metric) for place in places}
    main = sorted((p for p in places if table.columns[p].metric in first), key=lambda p: (state[p], metric[p]))
    rest = sorted(set(places) - set(main), key=lambda p: (metric[p], state[p]))

    def part(chosen: Sequence[int]) -> ResultTable:
        columns = (table.columns[place] for place in chosen)
        grouped = (replace(c, group=groups.get(c.attack, c.group), detail="") for c in columns)
        rows = (replace(row, cells=tuple(row.cells[place] for place in chosen)) for row in table.rows)
        return replace(table, columns=tuple(grouped), rows=tuple(rows))

    return part(main), part(rest)


def table_rows(cells: Sequence[Mapping[str, Cell]], measurements: Measurements) -> tuple[TableRow, ...]:
    """The rows of those models that any column has a cell of.

    Args:
        cells: Of each column, by model; see :func:`column_cells`.
        measurements: Models in order, and their titles.
    """
    measured = [model for model in measurements.models if any(model in column for column in cells)]
    return tuple(
        TableRow(
            model=model,
            title=measurements.title(model),
            is_base=model == measurements.base,
            cells=tuple(column.get(model) for column in cells),
        )
        for model in measured
    )


def target_title(measurements: Measurements, final: pd.DataFrame, attack: str) -> str:
    """Such as ``200 steps on pages``; see :meth:`Measurements.target`."""
    steps = int(final.loc[final["attack"] == attack, "steps"].iloc[0])
    return f"{steps:,} steps on {measurements.target(attack)}"


def _columns(final: pd.DataFrame, measurements: Measurements) -> list[Column]:
    """The paper's order: safety before; safety and learnability after each target; utility."""
    states = [NOT_ATTACKED, *targets(final)]
    columns: list[Column] = []
    for attack in states:
        before = attack == NOT_ATTACKED
        group = "Before fine-tuning" if before else f"After {target_title(measurements, final, attack)}"
        for metric, info in measurements.metrics.items():
            groups = {"safety"} if before else {"safety", "learnability"}
            if info.group in groups and not select(final, metric=metric, attack=attack).empty:
                columns.append(Column(group, arrowed(measurements, metric), "", metric, attack))
    for metric, info in measurements.metrics.items():
        if info.group != "utility":
            continue
        measured = [attack for attack in states if not select(final, metric=metric, attack=attack).empty]
        for attack in measured:
            after = "before" if attack == NOT_ATTACKED else f"after {measurements.target(attack)}"
            detail = after if len(measured) > 1 or attack != NOT_ATTACKED else ""
            columns.append(Column("Benign generation", arrowed(measurements, metric), detail, metric, attack))
    return columns


def arrowed(measurements: Measurements, metric: str) -> str:
    """A metric's title with an arrow in its better direction, if it has one."""
    info = measurements.metrics[metric]
    arrow = {"lower": "↓", "higher": "↑", "neither": ""}[info.better]
    return f"{info.title}\N{NO-BREAK SPACE}{arrow}".rstrip()


def paired_apart(measurements: Measurements, settings: ReportConfig, metric: str, attack: str, steps: int) -> Apart:
    """Whether two models of a state are told apart: the interval of their paired difference excludes 0."""

    def apart(best: str, other: str) -> bool:
        difference = paired_difference(measurements, settings, (best, other), metric=metric, attack=attack, steps=steps)
        return difference is not None and (difference.low > 0 or difference.high < 0)

    return apart


def unpaired_apart(values: pd.DataFrame) -> Apart:
    """Whether two unpaired values are told apart: their intervals do not overlap."""
    ends = {str(row["model"]): (float(row["low"]), float(row["high"])) for row in values.to_dict("records")}
    return lambda best, other: ends[best][1] < ends[other][0] or ends[other][1] < ends[best][0]


def shown_best(values: pd.DataFrame, info: MetricInfo, base: str | None, apart: Apart) -> set[str]:
    """The best models, and those that are not told apart from one of them; an empty set if that is every model.

    Args:
        values: Columns model and mean; one row a model.
        info: The metric that they are values of.
        base: Which of them is no contender; None where all are.
        apart: Whether the best and another one are told apart.
    """
    means = {str(row["model"]): float(row["mean"]) for row in values.to_dict("records") if row["model"] != base}
    if len(means) < 2 or info.better == "neither":
        return set()
    least = (min if info.better == "lower" else max)(means.values())
    best = {model for model, mean in means.items() if math.isclose(mean, least)}
    others = (model for model in means if model not in best)
    bold = best | {model for model in others if not all(apart(leader, model) for leader in best)}
    return bold if len(bold) < len(means) else set()


def column_cells(
    values: pd.DataFrame, info: MetricInfo, *, base: str | None, apart: Apart | None = None
) -> dict[str, Cell]:
    """Model to cell, with the best ones marked; see :func:`shown_best`.

    Args:
        values: Columns model, mean, std, low, high; one row a model.
        info: The metric that they are values of.
        base: Which of them is no contender; None where all are.
        apart: Whether two models are told apart; None for :func:`unpaired_apart`.
    """
    best = shown_best(values, info, base, apart or unpaired_apart(values))
    return {str(row["model"]): Cell.of(row, info, best=str(row["model"]) in best) for row in values.to_dict("records")}


def with_cells_explained(table: ResultTable, frame: pd.DataFrame, *more: str, title: str = "") -> ResultTable:
    """The table with captions on seeds and images behind its cells, with and without intervals.

    Args:
        table: As laid out.
        frame: Its rows, with n and seeds.
        more: Further sentences of both captions.
        title: First words of both captions; by default the caption has its own.
    """
    title = title or table.caption.partition(". ")[0].removesuffix(".")
    caption = table.caption if table.caption.startswith(title) else f"{title}. {table.caption}"
    spread = f"± is the standard deviation over training seeds ({_range(frame['seeds'])}; none with one)"
    if (frame["seeds"] == 2).any():
        spread += f"; {OWN_VALUES}"
    images = f"n = {_range(frame['n'])} images."
    short = f"{title}. {spread}; {images}"
    long = f"{caption} {spread}, intervals are in brackets, and {images}"
    long, short = (" ".join(filter(None, (text, *more))) for text in (long, short))
    return replace(table, caption=long, short_caption=short)


def bold_words(contenders: str, *, paired: bool) -> str:
    """The meaning of bold, as the end of a sentence.

    Args:
        contenders: Such as ``models other than Base``.
        paired: Which rule it is: :func:`paired_apart`, or :func:`unpaired_apart`.
    """
    how = "the interval of the difference, over the same seeds, prompts and noise, includes 0"
    how = how if paired else "their intervals overlap"
    return (
        f"bold is the best of the {contenders}, and each one that is not told apart from it ({how}); nothing is bold "
        "where that is all of them."
    )


def _caption(final: pd.DataFrame, measurements: Measurements, settings: ReportConfig) -> str:
    """Describes the intervals, and the images and seeds behind each metric."""
    sizes = []
    for metric, info in measurements.metrics.items():
        rows = final[final["metric"] == metric]
        if not rows.empty:
            seeds = _range(rows["seeds"])
            plural = "" if seeds == "1" else "s"
            prompts = measurements.title(info.prompt_set)
            sizes.append(f"{info.title}, {prompts}: n = {_range(rows['n'])}, {seeds} training seed{plural}")
    two = f"{OWN_VALUES[0].upper()}{OWN_VALUES[1:]}." if (final["seeds"] == 2).any() else ""
    zero = relapse_note(final.loc[(final["mean"] == 0) & (final["relapsed"] == 0), "seeds"], settings)
    caption = (
        f"Each value with its {100 * settings.confidence:g}\N{NO-BREAK SPACE}% interval: "
        f"{settings.interval_words}; "
        f"Clopper–Pearson over prompts where fewer than {settings.rare_prompts} prompts show, or fail to show, the "
        "event; Student t across seeds for values of whole image sets (none with one seed). The arrow points in the "
        f"better direction; {bold_words(f'models other than {measurements.title(measurements.base)}', paired=True)} "
        + "; ".join(sizes)
        + "."
    )
    return " ".join(filter(None, (caption, two, zero)))


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"
