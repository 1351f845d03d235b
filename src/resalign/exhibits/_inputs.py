"""The inputs of an exhibit: measured frames by name, and the names of their models, attacks and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from resalign.analysis.frames import final_states, read_csv
from resalign.analysis.measured import measurements_of, read_names, with_exhibit_decimals
from resalign.analysis.measurements import FOCUS, NOT_ATTACKED, Measurements, MetricInfo
from resalign.analysis.sweeps import sweep_table
from resalign.config import registry
from resalign.config.report import ReportConfig
from resalign.display.variants_table import VARIANT
from resalign.jobs.exhibit import Words

_ABLATED_DECIMALS = 3


@dataclass(frozen=True)
class ExhibitInputs:
    """An exhibit's inputs.

    Attributes:
        settings: Of the report: intervals, colours, sizes.
        files: Measured frames by name (``values``, …); ``ablation``, ``slices`` and ``names`` where they are read;
            an exhibit of several series has each one's ablation by its exhibit, ``table4``.
        words: From the plan: the setting of published numbers, series, metrics of ablations.
    """

    settings: ReportConfig
    files: Mapping[str, Path]
    words: Words

    def frame(self, name: str) -> pd.DataFrame:
        """A frame by name.

        Raises:
            KeyError: Naming those that the exhibit declares.
        """
        if name not in self.files:
            raise KeyError(f"no frame '{name}'; this exhibit reads {sorted(self.files)}, name it in READS")
        if name not in self._read:
            self._read[name] = read_csv(self.files[name])
        return self._read[name]

    @cached_property
    def _read(self) -> dict[str, pd.DataFrame]:
        """Frames that were read before."""
        return {}

    @cached_property
    def names(self) -> dict[str, Any]:
        """The values of names.json."""
        return read_names(self.files["names"])

    @cached_property
    def measurements(self) -> Measurements:
        """Models, attacks and metrics, with values where the exhibit reads those of images."""
        values = [self.frame(name) for name in ("images", "sets")] if "images" in self.files else []
        return with_exhibit_decimals(measurements_of(self.names, *values), self.names)

    @property
    def main(self) -> pd.DataFrame:
        """The values of the main table's attacks, at all steps."""
        values, main = self.frame("values"), self.measurements.main()
        return values[values["attack"].isin({NOT_ATTACKED, *main.attacks})].reset_index(drop=True)

    @property
    def another_world(self) -> str:
        """Why published numbers are of another setting and get no difference, or ''."""
        return self.words.another_world

    @property
    def comparable(self) -> bool:
        """Whether published numbers are of this experiment's setting."""
        return not self.another_world

    @property
    def has_resalign(self) -> bool:
        """Whether a model is ResAlign's: the one that others are held against is then no choice."""
        return FOCUS in map(self.names["methods"].get, self.measurements.models)

    @property
    def focus(self) -> str:
        """The model that others are held against: ResAlign, or the one that shows the concept least after attacks."""
        names, methods = self.measurements, self.names["methods"]
        if self.has_resalign:
            return next(model for model in names.models if methods.get(model) == FOCUS)
        values = self.main
        shown = values[(values["metric"] == names.safety_metric) & (values["model"] != names.base)]
        attacked = shown[shown["attack"] != NOT_ATTACKED]
        ranked = final_states(attacked if len(attacked) else shown).groupby("model", sort=False)["mean"].mean()
        return str(ranked.idxmin()) if len(ranked) else names.base

    def has_series(self, exhibit: str) -> bool:
        """Whether there is an ablation or a sweep of an exhibit."""
        swept = any(label.startswith(exhibit) for label in self.measurements.sweeps)
        return swept or "ablation" in self.files or exhibit in self.files

    def series(self, exhibit: str) -> pd.DataFrame:
        """Values by variant: of the ablation that the exhibit reads, and of sweeps named like it (``table4-…``).

        Returns:
            Columns series, variant and those of values.csv, each attack with its most steps.
        """
        parts = []
        for name in ("ablation", exhibit):
            if name in self.files:
                parts.append(self.frame(name).assign(series=self.files[name].parent.name))
        for label, sweep in self.measurements.sweeps.items():
            if label.startswith(exhibit):
                parts.append(sweep_table(self.frame("values"), label, sweep))
        final = final_states(pd.concat(parts, ignore_index=True), *VARIANT)
        return final[[*VARIANT, *final.columns.difference(VARIANT, sort=False)]]

    def naming(self, frame: pd.DataFrame) -> Measurements:
        """The measurements' names, and those of models, attacks and metrics that only a frame has, an ablation's."""
        known = self.measurements
        models = dict.fromkeys([*known.models, *frame["model"]])
        attacked = frame.loc[frame["attack"] != NOT_ATTACKED, ["attack", "dataset"]].itertuples(index=False, name=None)
        attacks = dict(known.attacks)
        attacks |= {attack: dataset for attack, dataset in attacked if attack not in attacks}
        modules = self.words.metric_modules
        more = {m: info_of(m, modules) for m in frame["metric"].unique() if m not in known.metrics}
        metrics = {**known.metrics, **more}
        return replace(known, models=tuple(models), attacks=attacks, metrics=metrics, sweeps={}, main_attacks=None)


def info_of(label: str, modules: Mapping[str, str]) -> MetricInfo:
    """The meaning of a metric that only an ablation has.

    Args:
        label: As the ablation calls it.
        modules: Names of metrics' modules by label.

    Raises:
        ValueError: If the ablation declares none of this label.
    """
    if label not in modules:
        raise ValueError(
            f"metric '{label}' of an ablation is none of the experiment's, and its settings declare none called so; "
            f"expected one of {sorted(modules)}"
        )
    name = modules[label]
    module = registry.member("metrics", name)
    title = module.TITLE if name == label else label.replace("_", " ")
    return MetricInfo.of(module, title, "the ablation's prompts", _ABLATED_DECIMALS)
