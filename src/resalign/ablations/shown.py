"""An ablation's table and figure, made from its measured values alone.

``python -m resalign.ablations.shown --job JSON --values values.csv --output table.tex`` makes that one file; the others
are ``table.csv``, ``figure.png`` and ``figure.svg``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from resalign.ablations.measured import VALUE_COLUMNS
from resalign.analysis.collect import load_metric
from resalign.analysis.frames import final_states, read_csv, write_csv
from resalign.analysis.measurements import IMAGE_COLUMNS, NOT_ATTACKED, RUN_COLUMNS, Measurements, MetricInfo, Sweep
from resalign.config.report import ReportConfig
from resalign.display import drawing
from resalign.display.drawing import Style
from resalign.display.latex import to_latex
from resalign.display.layout import ResultTable
from resalign.display.variants_figure import sweep_figure
from resalign.display.variants_table import lay_out_variants

NO_BASE = ""  # of rows that are all compared with one another


class Ablation:
    """Measured values with what a table and a figure say beside them.

    Attributes:
        values: Of the states that are shown, after the whole fine-tuning; see :data:`VALUE_COLUMNS`.
        metrics: Those that are shown, in order.
    """

    def __init__(self, job: dict[str, Any], values: pd.DataFrame) -> None:
        """Takes the states that are shown.

        Args:
            job: From :func:`resalign.jobs.ablation.showing_job`.
            values: From :func:`resalign.ablations.measured.measured`.

        Raises:
            ValueError: If a metric that is shown was measured nowhere.
        """
        self.job = job
        self.settings = ReportConfig.parse(job["report"], where="report")
        loaded = {label: load_metric(label, dict(settings))[2] for label, settings in job["metrics"]}
        self.metrics: dict[str, MetricInfo] = {label: loaded[label] for label in job["shown"]}
        missing = [label for label in self.metrics if label not in set(values["metric"])]
        if missing:
            raise ValueError(
                f"ablation: metrics {missing} were measured in no state; it has {list(set(values['metric']))}"
            )
        states = along(values) if job["checkpoints"] else final_states(values, "variant")
        self.values = states[states["metric"].isin(self.metrics)].reset_index(drop=True)
        self.variants = list(dict.fromkeys(values["variant"]))

    @classmethod
    def read(cls, job: dict[str, Any], path: Path) -> Ablation:
        """With the values from a file."""
        return cls(job, read_csv(path)[VALUE_COLUMNS])

    def table(self) -> ResultTable:
        """Variants as rows, of each model where there are several; before and after each attack as columns."""
        shown = self._measurements(dict.fromkeys(self.values["model"]), self.job["base"])
        return lay_out_variants(self.values.assign(series=""), shown, self._caption())

    def figure(self) -> Figure:
        """The first metric at every variant, one line a state, with learnability below where it was measured."""
        titles = self._measurements({}, NO_BASE)
        rows = self.values.assign(
            model=self.values.apply(self._line, axis=1, titles=titles), value=self.values["variant"]
        )
        shown = self._measurements(dict.fromkeys(rows["model"]), NO_BASE)
        sweep = Sweep(
            title=self.job["title"],
            axis=self.job["axis"],
            attacks={variant: variant for variant in self.variants},
            metrics=list(self.metrics),
        )
        return sweep_figure(rows, shown, self.settings, sweep, styles=self._styles(rows))

    def write(self, output: Path) -> None:
        """Makes one file, which its name tells: table.csv, table.tex, figure.png or figure.svg."""
        if output.suffix == ".csv":
            write_csv(self.values, output)
        elif output.suffix == ".tex":
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(to_latex(self.table(), head=self.job["axis"]), encoding="utf-8")
        else:
            formats = (output.suffix.removeprefix("."),)
            drawing.save(self.figure(), output.with_suffix(""), self.settings, formats=formats)

    def _measurements(self, names: dict[str, Any], base: str) -> Measurements:
        """Rows or lines as models, as tables and figures of experiments have them."""
        return Measurements(
            images=pd.DataFrame(columns=list(IMAGE_COLUMNS)),
            runs=pd.DataFrame(columns=list(RUN_COLUMNS)),
            metrics=self.metrics,
            models=(*names, *(() if base in names else (base,))),
            attacks=dict(self.job["attacks"]),
            base=base,
        )

    def _styles(self, rows: pd.DataFrame) -> dict[str, Style]:
        """Of each line: its model's colour, which it has in every figure; dashes and marker tell the states apart."""
        models = drawing.styles_of(self.job["order"], self.job["base"], self.settings)
        attacks = [attack for attack in dict(self.job["attacks"]) if attack in set(rows["attack"])]
        places = {NOT_ATTACKED: None, **{attack: place for place, attack in enumerate(attacks)}}
        return {
            line: drawing.state_style(models[model].colour, places[attack])
            for line, model, attack in zip(rows["model"], self.values["model"], rows["attack"], strict=True)
        }

    def _line(self, row: pd.Series, titles: Measurements) -> str:
        attack = str(row["attack"])
        state = "before" if attack == NOT_ATTACKED else f"after {titles.target(attack)}"
        return state if len(self.job["models"]) == 1 else f"{row['model']} {state}"

    def _caption(self) -> str:
        note = f" {self.job['note']}" if self.job["note"] else ""
        counts = {int(count) for count in self.values["seeds"]}
        seeds = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        return (
            f"{self.job['title']}.{note} Each value with its {100 * self.settings.confidence:g}\N{NO-BREAK SPACE}% "
            f"interval, made as in the main table; training seeds: {seeds}. The arrow points in the better direction."
        )


def along(values: pd.DataFrame) -> pd.DataFrame:
    """The rows of every checkpoint; those before fine-tuning are each attack's with 0 steps."""
    is_before = values["attack"] == NOT_ATTACKED
    attacks = values.loc[~is_before, ["attack", "dataset"]].drop_duplicates().itertuples(index=False)
    return pd.concat([*(values[is_before].assign(attack=a, dataset=d) for a, d in attacks), values[~is_before]])


def main(arguments: list[str] | None = None) -> None:
    """Command line of the rule ablation_shown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", type=json.loads, required=True, help="titles, metrics and settings as JSON")
    parser.add_argument("--values", type=Path, required=True, help="measured values")
    parser.add_argument("--output", type=Path, required=True, help="the file to make")
    parsed = parser.parse_args(arguments)
    Ablation.read(parsed.job, parsed.values).write(parsed.output)


if __name__ == "__main__":
    main()
