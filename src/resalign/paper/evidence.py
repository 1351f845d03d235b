"""What an exhibit is made from: measured frames by name, and what their models, attacks and metrics are called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from resalign.config import registry
from resalign.report.measurements import IMAGE_COLUMNS, NOT_ATTACKED, RUN_COLUMNS, Measurements, MetricInfo, Sweep
from resalign.report.settings import ReportConfig
from resalign.report.tables import CELL, final_states

TEXT = ("model", "attack", "dataset", "metric", "prompt_set", "prompt_id", "prompt", "path", "variant", "quantity")
# Labels of config/ablations.yaml that are not their metric's name.
ALIASES = {"clip_t": "clip_score"}
_ABLATED_DECIMALS = 3
FOCUS = "resalign"  # the method that the others are held against, where the experiment has it


def read_frame(path: Path) -> pd.DataFrame:
    """A measured frame; an empty text is a name that is empty, an empty number is NaN."""
    header = pd.read_csv(path, nrows=0).columns
    text = {name: str for name in TEXT if name in header}
    return pd.read_csv(path, dtype=text, keep_default_na=False, na_values={n: [""] for n in header if n not in text})


def names_of(measurements: Measurements, methods: Mapping[str, str]) -> dict[str, Any]:
    """Names and their meanings as plain values, for names.json; pairs keep the order.

    Args:
        measurements: What was measured.
        methods: Unlearning method by model.
    """
    return {
        "models": measurements.models,
        "base": measurements.base,
        "attacks": list(measurements.attacks.items()),
        "main_attacks": measurements.main_attacks,
        "metrics": [(label, asdict(info)) for label, info in measurements.metrics.items()],
        "sweeps": [(k, {**vars(s), "attacks": list(s.attacks.items())}) for k, s in measurements.sweeps.items()],
        "methods": dict(methods),
    }


def named(values: Mapping[str, Any]) -> Measurements:
    """:func:`names_of` read back: measurements that name everything and hold no value."""
    return Measurements(
        images=pd.DataFrame(columns=list(IMAGE_COLUMNS)),
        runs=pd.DataFrame(columns=list(RUN_COLUMNS)),
        metrics={label: MetricInfo(**info) for label, info in values["metrics"]},
        models=tuple(values["models"]),
        attacks=dict(values["attacks"]),
        base=values["base"],
        sweeps={label: Sweep(**{**sweep, "attacks": dict(sweep["attacks"])}) for label, sweep in values["sweeps"]},
        main_attacks=values["main_attacks"],
    )


@dataclass(frozen=True)
class Evidence:
    """An exhibit's inputs.

    Attributes:
        settings: Of the report: intervals, colours, sizes.
        files: Measured frames by name (``values``, …); ``ablation``, ``slices`` and ``names`` where they are read.
        comparable: Whether published numbers are of this experiment's world; elsewhere they get no difference.
        plan: What the exhibit ``contents`` lists: one row an exhibit; empty for all others.
    """

    settings: ReportConfig
    files: Mapping[str, Path]
    comparable: bool = False
    plan: tuple[Mapping[str, str], ...] = ()

    def frame(self, name: str) -> pd.DataFrame:
        """A frame by name.

        Raises:
            KeyError: Naming those that the exhibit declares.
        """
        if name not in self.files:
            raise KeyError(f"no frame '{name}'; this exhibit reads {sorted(self.files)}, name it in READS")
        return read_frame(self.files[name])

    @cached_property
    def names(self) -> dict[str, Any]:
        """The values of names.json."""
        found: dict[str, Any] = json.loads(self.files["names"].read_text(encoding="utf-8"))
        return found

    @cached_property
    def measurements(self) -> Measurements:
        """Models, attacks and metrics, without values."""
        return named(self.names)

    @property
    def main(self) -> pd.DataFrame:
        """The values of the main table's attacks, at all steps."""
        values, main = self.frame("values"), self.measurements.main()
        return values[values["attack"].isin({NOT_ATTACKED, *main.attacks})].reset_index(drop=True)

    @property
    def focus(self) -> str:
        """The model that others are held against: ResAlign, or the one that shows the concept least after attacks."""
        names, methods = self.measurements, self.names["methods"]
        own = next((model for model in names.models if methods.get(model) == FOCUS), None)
        if own:
            return own
        values = self.main
        shown = values[(values["metric"] == names.safety_metric) & (values["model"] != names.base)]
        attacked = shown[shown["attack"] != NOT_ATTACKED]
        ranked = final_states(attacked if len(attacked) else shown).groupby("model", sort=False)["mean"].mean()
        return str(ranked.idxmin()) if len(ranked) else names.base

    def series(self, exhibit: str) -> pd.DataFrame:
        """Values by variant: of the ablation that the exhibit reads, and of sweeps named like it (``table4-…``).

        Returns:
            Columns series, variant and those of values.csv, each attack with its most steps.
        """
        parts = []
        if "ablation" in self.files:
            parts.append(self.frame("ablation").assign(series=self.files["ablation"].parent.name))
        for label, sweep in self.measurements.sweeps.items():
            if label.startswith(exhibit):
                values = self.frame("values")
                for variant, attack in sweep.attacks.items():
                    parts.append(values[values["attack"] == attack].assign(series=label, variant=variant))
        found = pd.concat(parts, ignore_index=True)
        most = found.groupby(["series", "variant", "attack"])["steps"].transform("max")
        final = found[found["steps"] == most]
        return final[["series", "variant", *[c for c in final.columns if c not in ("series", "variant")]]].reset_index(
            drop=True
        )

    def naming(self, frame: pd.DataFrame) -> Measurements:
        """The measurements' names, and those of models, attacks and metrics that only a frame has, an ablation's."""
        known = self.measurements
        models = dict.fromkeys([*known.models, *frame["model"]])
        attacked = frame.loc[frame["attack"] != NOT_ATTACKED, ["attack", "dataset"]].itertuples(index=False, name=None)
        attacks = dict(known.attacks)
        attacks |= {attack: dataset for attack, dataset in attacked if attack not in attacks}
        metrics = {**known.metrics, **{m: info_of(m) for m in frame["metric"].unique() if m not in known.metrics}}
        return replace(known, models=tuple(models), attacks=attacks, metrics=metrics, sweeps={}, main_attacks=None)


def info_of(label: str) -> MetricInfo:
    """What a metric is that an ablation alone has, by the module that its label names.

    Raises:
        ValueError: If no metric is called so.
    """
    name = ALIASES.get(label, label)
    if name not in registry.members("metrics"):
        raise ValueError(
            f"metric '{label}' of an ablation is none of the experiment's, and no file in src/resalign/metrics is "
            f"called so; expected one of {sorted([*registry.members('metrics'), *ALIASES])}"
        )
    module = registry.member("metrics", name)
    title = module.TITLE if name == label else label.replace("_", " ")
    return MetricInfo(title, module.BETTER, module.KIND, module.GROUP, "the ablation's prompts", _ABLATED_DECIMALS)


def unique_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """The first row of each state and metric."""
    return frame.drop_duplicates(CELL, ignore_index=True)
