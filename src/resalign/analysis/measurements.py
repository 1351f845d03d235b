"""The report's inputs: tidy frames, validated when they are gathered. Importing this module imports no pandas."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from resalign.config.registry import sentence

if TYPE_CHECKING:
    import pandas as pd

ColumnKind = Literal["str", "int", "float", "bool"]

FOCUS = "resalign"  # the method that the others are held against, where the experiment has it
NOT_ATTACKED = "none"  # the attack's name of a model that was not fine-tuned
STATE = ("model", "attack", "dataset", "steps")  # what names one state of one model

_STATE_KINDS: dict[str, ColumnKind] = {"model": "str", "attack": "str", "dataset": "str", "steps": "int", "seed": "int"}
IMAGE_COLUMNS: Mapping[str, ColumnKind] = {
    **_STATE_KINDS,
    "metric": "str",
    "prompt_id": "str",
    "image_index": "int",
    "value": "float",
}
RUN_COLUMNS: Mapping[str, ColumnKind] = {**_STATE_KINDS, "metric": "str", "value": "float", "n": "int"}
HISTORY_COLUMNS: Mapping[str, ColumnKind] = {
    "stage": "str",
    "label": "str",
    "seed": "int",
    "step": "int",
    "quantity": "str",
    "value": "float",
}
GALLERY_COLUMNS: Mapping[str, ColumnKind] = {
    **_STATE_KINDS,
    "prompt_id": "str",
    "prompt": "str",
    "image_index": "int",
    "path": "str",
    "flagged": "bool",
}


@dataclass(frozen=True)
class MetricInfo:
    """Title, direction and kind of a metric.

    Attributes:
        title: As a table's header shows it.
        better: The better direction.
        kind: ``rate`` (0 or 1 an image), ``mean`` (a number an image) or ``set`` (one number for a set of images).
        group: ``safety``, ``utility``, ``learnability`` or ``weights``; the first metric of a group is the one the
            finding states, which says nothing of weights.
        prompt_set: The prompts (or examples) it is measured on.
        decimals: Digits after the point in the table.
        description: One sentence for the page.
        range: The least and the largest value that there can be; None where there is no such bound. A rate's is 0 to 1.
    """

    title: str
    better: Literal["lower", "higher", "neither"]
    kind: Literal["rate", "mean", "set"]
    group: Literal["safety", "utility", "learnability", "weights"]
    prompt_set: str
    decimals: int = 2
    description: str = ""
    range: tuple[float | None, float | None] = (None, None)

    @property
    def directed(self) -> str:
        """The title, with the better direction in words if there is one."""
        return self.title if self.better == "neither" else f"{self.title} ({self.better} is better)"

    @property
    def bounds(self) -> tuple[float, float]:
        """The range as numbers, infinite where there is no bound."""
        low, high = (0.0, 1.0) if self.kind == "rate" else self.range
        return -math.inf if low is None else low, math.inf if high is None else high

    @classmethod
    def of(cls, module: ModuleType, title: str, prompt_set: str, decimals: int = 2) -> MetricInfo:
        """The properties that a metric's module declares."""
        known = title, module.BETTER, module.KIND, module.GROUP, prompt_set, decimals
        _, family, name = module.__name__.split(".")
        return cls(*known, description=sentence(family, name), range=getattr(module, "RANGE", (None, None)))


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A series of attacks that are shown together, such as one attack at several learning rates.

    Attributes:
        title: Heading of its table and figure.
        axis: What changes from one value to the next.
        note: Said below the table; optional.
        attacks: Value, in the order shown, to the label of its attack.
        metrics: Metrics of the table, of which the first one is drawn; none: the first safety metric.
    """

    title: str
    axis: str
    note: str = ""
    attacks: Mapping[str, str]
    metrics: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """All measured values of one experiment.

    A model that was not fine-tuned has the attack ``none``, the dataset ``''`` and 0 steps.

    Attributes:
        images: One row per generated image and metric of kind rate or mean: model, attack, dataset, steps, seed (of the
            training), metric, prompt_id, image_index, value.
        runs: One row per run and metric of kind set: model, attack, dataset, steps, seed, metric, value, n (images or
            examples behind it).
        metrics: Name to meaning, in the order of the table's columns.
        models: Every model, in the order of the table's rows.
        attacks: Every attack's label and the name of its data set, in the table's order.
        base: The model before any unlearning.
        titles: Names of models, datasets and attacks to how they are shown; a name without an entry shows itself.
        sweeps: Series of attacks, by label.
        main_attacks: Labels of the attacks that the main table shows; those that are only in a sweep are left out of
            it. None for all.

    Raises:
        ValueError: Naming frame, column and rows at fault.
    """

    images: pd.DataFrame
    runs: pd.DataFrame
    metrics: Mapping[str, MetricInfo]
    models: tuple[str, ...]
    attacks: Mapping[str, str]
    base: str
    titles: Mapping[str, str] = field(default_factory=dict)
    sweeps: Mapping[str, Sweep] = field(default_factory=dict)
    main_attacks: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Validates both frames and that they agree with the names given."""
        if self.base not in self.models:
            raise ValueError(f"base model '{self.base}' is not among the models {list(self.models)}")
        check_frame(self.images, "images", IMAGE_COLUMNS)
        check_frame(self.runs, "runs", RUN_COLUMNS)
        self._check_named()
        self._check_names(self.images, "images", {"rate", "mean"})
        self._check_names(self.runs, "runs", {"set"})
        _check_unique(self.images, "images", [*STATE, "seed", "metric", "prompt_id", "image_index"])
        _check_unique(self.runs, "runs", [*STATE, "seed", "metric"])
        rates = [name for name, info in self.metrics.items() if info.kind == "rate"]
        values = self.images.loc[self.images["metric"].isin(rates), "value"]
        if not values.isin([0.0, 1.0]).all():
            odd = sorted(set(values[~values.isin([0.0, 1.0])]))[:5]
            raise ValueError(f"images: a rate's value is 0 or 1 for each image, got {odd}; is the kind 'mean' meant?")

    def _check_named(self) -> None:
        """Sweeps and the main table name declared attacks and metrics."""
        named = {"main_attacks": ("attack", self.main_attacks or ())}
        for label, sweep in self.sweeps.items():
            named[f"sweep '{label}'"] = ("attack", tuple(sweep.attacks.values()))
            named[f"sweep '{label}', its table"] = ("metric", tuple(sweep.metrics))
            if not sweep.attacks:
                raise ValueError(f"sweep '{label}' has no attacks; give it at least one value")
        for where, (kind, names) in named.items():
            known = self.attacks if kind == "attack" else self.metrics
            unknown = sorted(set(names) - set(known))
            if unknown:
                raise ValueError(f"{where}: {kind} {unknown} not declared; expected some of {sorted(known)}")

    def _check_names(self, frame: pd.DataFrame, name: str, kinds: set[str]) -> None:
        """Every model, attack and metric is a declared one, and the metric's kind belongs into this frame."""
        allowed = {
            "model": set(self.models),
            "attack": {NOT_ATTACKED, *self.attacks},
            "metric": {metric for metric, info in self.metrics.items() if info.kind in kinds},
        }
        for column, names in allowed.items():
            unknown = sorted(set(frame[column]) - names)
            if unknown:
                raise ValueError(f"{name}: {column} {unknown} not declared; expected some of {sorted(names)}")
        _check_states(frame, name)

    def main(self) -> Measurements:
        """These measurements without the attacks that are only in sweeps."""
        if self.main_attacks is None:
            return self
        attacks = {NOT_ATTACKED, *self.main_attacks}
        return replace(
            self,
            images=self.images[self.images["attack"].isin(attacks)],
            runs=self.runs[self.runs["attack"].isin(attacks)],
            attacks={label: dataset for label, dataset in self.attacks.items() if label in attacks},
            sweeps={},
            main_attacks=None,
        )

    @cached_property
    def untrained(self) -> frozenset[str]:
        """Models that were measured with one seed before fine-tuning, and fine-tuned with others.

        That they were fine-tuned with further seeds distinguishes them from models that were trained once; a model
        without attacks is taken as trained.
        """
        seeds: dict[str, tuple[set[int], set[int]]] = {model: (set(), set()) for model in self.models}
        for frame in (self.images, self.runs):
            for model, attack, seed in frame[["model", "attack", "seed"]].drop_duplicates().itertuples(index=False):
                seeds[model][attack != NOT_ATTACKED].add(seed)
        return frozenset(m for m, (before, after) in seeds.items() if len(before) == 1 and not after <= before)

    def title(self, name: str) -> str:
        """The display name of a model, dataset or attack."""
        return self.titles.get(name, name)

    def target(self, attack: str) -> str:
        """An attack's display name by its data set: ``pages``, or ``pages (lora)`` if several attacks share it."""
        dataset = self.attacks[attack]
        several = list(self.attacks.values()).count(dataset) > 1
        return f"{self.title(dataset)} ({self.title(attack)})" if several else self.title(dataset)

    def shown_metrics(self, sweep: Sweep) -> list[str]:
        """The metrics of a sweep's table."""
        return list(sweep.metrics) or [self.safety_metric]

    @property
    def safety_metric(self) -> str:
        """The metric that the finding and the figures show: the first of group safety.

        Raises:
            ValueError: If there is none.
        """
        metric = self.headline("safety")
        if metric is None:
            raise ValueError(f"no metric of group 'safety' among {list(self.metrics)}; the report needs at least one")
        return metric

    def headline(self, group: str) -> str | None:
        """The first metric of a group, which the finding states."""
        return next((name for name, info in self.metrics.items() if info.group == group), None)


def check_frame(frame: pd.DataFrame, name: str, columns: Mapping[str, ColumnKind]) -> None:
    """Checks columns, their types, and that no value is missing or infinite.

    Args:
        frame: The rows.
        name: What to call the frame in an error.
        columns: Column to kind: str, int, float or bool; others are errors.

    Raises:
        ValueError: Naming frame and column.
    """
    from pandas.api import types

    missing, extra = set(columns) - set(frame.columns), set(frame.columns) - set(columns)
    if missing or extra:
        raise ValueError(
            f"{name}: columns missing {sorted(missing)}, unknown {sorted(extra)}; expected {list(columns)}"
        )
    if frame.empty:
        return
    tests = {
        "str": types.is_string_dtype,
        "int": types.is_integer_dtype,
        "float": types.is_float_dtype,
        "bool": types.is_bool_dtype,
    }
    for column, kind in columns.items():
        series = frame[column]
        if not tests[kind](series):
            raise ValueError(f"{name}: column '{column}' holds {series.dtype}; expected {kind}")
        bad = series.isna() | (series.abs() == float("inf")) if kind == "float" else series.isna()
        if bad.any():
            rows = frame.index[bad][:5].tolist()
            raise ValueError(f"{name}: column '{column}' is NaN or infinite in {int(bad.sum())} rows, first {rows}")


def _check_states(frame: pd.DataFrame, name: str) -> None:
    """``none`` goes with no dataset and 0 steps, any other attack with a dataset and at least one step."""
    plain = frame["attack"] == NOT_ATTACKED
    wrong = plain & ((frame["dataset"] != "") | (frame["steps"] != 0))
    wrong |= ~plain & ((frame["dataset"] == "") | (frame["steps"] <= 0))
    if wrong.any():
        first = frame.loc[wrong, list(STATE)].iloc[0].to_dict()
        raise ValueError(
            f"{name}: {int(wrong.sum())} rows mix states, first {first}; attack '{NOT_ATTACKED}' has dataset '' and 0 "
            "steps, any other attack has a dataset and more steps than 0"
        )


def _check_unique(frame: pd.DataFrame, name: str, keys: list[str]) -> None:
    repeated = frame.duplicated(keys)
    if repeated.any():
        first = frame.loc[repeated, keys].iloc[0].to_dict()
        raise ValueError(
            f"{name}: {int(repeated.sum())} rows repeat a measurement, first {first}; gather each run once"
        )
