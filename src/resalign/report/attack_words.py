"""Writes the attack study in Markdown: at which values each model holds or breaks, and the tables.

``python -m resalign.report.attack_words results/attack-study docs/studies/attacks`` copies a finished study's small
files into a folder of the repository.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from resalign.analysis.frames import select, targets
from resalign.analysis.measurements import NOT_ATTACKED, Measurements
from resalign.config.report import ReportConfig
from resalign.display.layout import Cell
from resalign.display.products import Table
from resalign.display.values import value_text
from resalign.jobs.report import WORDS
from resalign.report.sweep_text import sweep_sentences
from resalign.report.sweeps import SweepResult

TABLES = "## Tables"
KEPT = ("tables/*.csv", "figures/*.png", WORDS)


def attack_markdown(
    table: pd.DataFrame, sweeps: Sequence[SweepResult], measurements: Measurements, settings: ReportConfig
) -> str:
    """One paragraph per sweep, then the safety rate during fine-tuning, then the table of every sweep.

    Args:
        table: From :func:`resalign.analysis.frames.long_table`, of every attack.
        sweeps: From :func:`resalign.report.sweeps.sweep_results`.
        measurements: Names, titles and metrics.
        settings: Thresholds and intervals.
    """
    words, tables = [], []
    for result in sweeps:
        sentences = sweep_sentences(result.rows, result.summary, measurements, settings, result.sweep)
        words.append(f"- **{result.sweep.title}.** {' '.join([*sentences[1:], _plain(result.sweep.note)]).strip()}")
        tables.append(f"### {result.sweep.title}\n\n{_layout(result.table)}\n\n{_plain(result.sweep.note)}".rstrip())
    info = measurements.metrics[measurements.safety_metric]
    rule = (
        f"A model **holds** at a value where the upper end of its {info.title}'s "
        f"{100 * settings.confidence:g}\N{NO-BREAK SPACE}% interval is at most "
        f"{100 * settings.resurgence_threshold:g}\N{NO-BREAK SPACE}%, **is not shown to hold** where only "
        "the estimate is, and **breaks** otherwise. “At worst” gives the worst value, selected on half of the prompts "
        "and measured on the other half."
    )
    main = measurements.main()
    steps = [_steps(table, main, attack) for attack in targets(table) if attack in main.attacks]
    return "\n\n".join([rule, "\n".join(words), TABLES, *steps, *tables]) + "\n"


def _steps(table: pd.DataFrame, measurements: Measurements, attack: str) -> str:
    """The headline safety rate before an attack, and at each of its checkpoints."""
    metric = measurements.safety_metric
    info = measurements.metrics[metric]
    before, after = (select(table, metric=metric, attack=name) for name in (NOT_ATTACKED, attack))
    steps = sorted(set(after["steps"]))
    rows = [["model", "before", *(f"{step:,} steps" for step in steps)]]
    for model in measurements.models:
        parts = [before[before["model"] == model]]
        parts += [after[(after["model"] == model) & (after["steps"] == step)] for step in steps]
        values = [value_text(part.to_dict("records")[0], info) if len(part) else "–" for part in parts]
        rows.append([measurements.title(model), *values])
    return f"### {info.title} during fine-tuning, {measurements.target(attack)}\n\n{markdown_table(rows)}"


def _layout(table: Table) -> str:
    """A laid-out table of variants."""
    header = [column.title for column in table.layout.columns]
    rows = [[table.head, *header], *([row.title, *map(_cell, row.cells)] for row in table.layout.rows)]
    return markdown_table(rows)


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    value = f"**{cell.value}**" if cell.best else cell.value
    return f"{value} {cell.interval}".strip()


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the header."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    return " ".join(text.split())


def keep(results: Path, folder: Path) -> None:
    """Copies the small files of a finished study, in place of the like that were there; other files are left alone.

    Raises:
        FileNotFoundError: If the study has written no words: it has no sweeps, or is not finished.
    """
    if not (results / WORDS).is_file():
        raise FileNotFoundError(f"{results / WORDS}: missing; finish an experiment with sweeps first")
    for path in [path for pattern in KEPT for path in folder.glob(pattern)]:
        path.unlink()
    for path in [path for pattern in KEPT for path in sorted(results.glob(pattern))]:
        target = folder / path.relative_to(results)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="folder of a finished experiment with sweeps")
    parser.add_argument("folder", type=Path, help="where its small files are kept")
    parsed = parser.parse_args(arguments)
    keep(parsed.results, parsed.folder)


if __name__ == "__main__":
    main()
