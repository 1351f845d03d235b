"""Ablations: an experiment with some of its settings changed, value by value, beside the experiment's own runs."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from resalign.config import own_inputs
from resalign.config.assets import FETCHED
from resalign.config.experiment import LABEL, Experiment
from resalign.config.extension import LABELLED, extended
from resalign.config.plan import Plan, digest
from resalign.config.shape import Tier
from resalign.config.strict import ConfigError, Strict, nearest, read_yaml, shortened

DECLARED = "config/ablations.yaml"
# What no run's name knows of: runs are shared, and one of equal name must be the same whoever asks for it.
NOT_IN_NAMES = ("tiers", "resources", "scoring_batch_size")
# What belongs to the experiment as a whole.
OF_THE_EXPERIMENT = ("extends", "name", "tier", "digits", "audit", "sweeps", "report", "keep_images")


class AblationConfig(Strict):
    """A series of variants of one experiment: ``variants`` by name, a ``grid`` of settings, or ``checkpoints``.

    A setting is named by its keys with dots between them, ``unlearning.resalign.gamma``, and its value takes the place
    of what was there.
    """

    title: str
    axis: str = Field("variant", description="what changes from one variant to the next")
    note: str = Field("", description="a note under the table")
    metrics: tuple[str, ...] = Field((), description="metrics that are measured; none: every one of the experiment")
    models: tuple[str, ...] = Field((), description="models that are shown, and run; none: all but the base")
    attacks: tuple[str, ...] = Field((), description="attacks that are shown, and run; none: all")
    settings: dict[str, Any] = Field({}, description="changed in every variant")
    variants: dict[str, dict[str, Any]] = Field({}, description="changed settings by the variant's name; {} for none")
    grid: dict[str, tuple[Any, ...]] = Field({}, description="values of each setting; every combination is a variant")
    checkpoints: bool = Field(False, description="the variants are the attacks' checkpoints: one run serves them all")
    seeds: tuple[int, ...] = Field((), description="training seeds; none: the tier's")
    tier: Tier | None = Field(None, description="in place of the experiment's")

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if [bool(self.variants), bool(self.grid), self.checkpoints].count(True) != 1:
            raise ValueError("give one of 'variants', 'grid' and 'checkpoints'")
        empty = [key for key, values in self.grid.items() if not values]
        if empty:
            raise ValueError(f"grid: {empty} have no values; give at least one")
        names = [name for name, _ in self.changes()]
        if len(set(names)) < len(names):
            raise ValueError(f"values must differ as text, got {names}")
        return self

    def changes(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each variant's name and changed settings, in order; checkpoints share one, whose name is empty."""
        if self.checkpoints:
            yield "", self.settings
        for name, own in self.variants.items():
            yield name, {**self.settings, **own}
        short = [key.rpartition(".")[2] for key in self.grid]
        keys = short if len(set(short)) == len(short) else list(self.grid)
        for values in itertools.product(*self.grid.values()) if self.grid else ():
            words = [_text(value) for value in values]
            name = words[0] if len(words) == 1 else ", ".join(f"{k} {w}" for k, w in zip(keys, words, strict=True))
            yield name, {**self.settings, **dict(zip(self.grid, values, strict=True))}


@dataclass(frozen=True)
class Variant:
    """One variant, planned.

    Attributes:
        overrides: Its changed settings, by dotted key.
        plan: Every run of the changed experiment.
        config_hash: Of its resolved configuration apart from the tiers, which are in no run's name.
        is_own: Whether that is the experiment's own.
    """

    overrides: dict[str, Any]
    plan: Plan
    config_hash: str
    is_own: bool


class Ablations:
    """The ablations that a file declares for one experiment; each is validated and planned when it is asked for.

    Attributes:
        plan: The experiment's own.
        entries: By name, in the file's order.
    """

    def __init__(self, plan: Plan, values: dict[str, Any], path: str | Path = DECLARED) -> None:
        """Reads the experiment's part of a file.

        Args:
            plan: Of the experiment.
            values: What the experiment was read from.
            path: The file: ablations by name, by the experiment's name. Where it is missing, there are none.

        Raises:
            ConfigError: If an entry is faulty by itself.
        """
        self.plan, self._written, self._built = plan, values, dict[str, dict[str, Variant]]()
        self.where = f"{path}: {plan.experiment.config.name}"
        declared = read_yaml(path) if Path(path).is_file() else {}
        found = declared.get(plan.experiment.config.name) or {}
        if not isinstance(found, dict):
            raise ConfigError(f"{self.where}: expected a mapping of names to ablations, got {type(found).__name__}")
        for name in found:
            if not LABEL.fullmatch(str(name)):
                raise ConfigError(
                    f"{self.where}.{shortened(str(name))}: use letters, digits, '_', '.', '-', at most 180 characters, "
                    "because the name becomes a folder's"
                )
        self.entries = {
            name: AblationConfig.parse(entry, where=f"{self.where}.{name}") for name, entry in found.items()
        }

    def variants(self, name: str) -> dict[str, Variant]:
        """An ablation's variants by name, each validated whole.

        Raises:
            ConfigError: Naming ablation and variant.
        """
        if name not in self.entries:
            raise ConfigError(f"{self.where}: no ablation named '{name}'{nearest(name, self.entries)}")
        if name not in self._built:
            self._built[name] = {
                text: self._variant(name, text, changed) for text, changed in self.entries[name].changes()
            }
        return self._built[name]

    def made(self, kind: str, folder: str) -> tuple[Plan, Any]:
        """The plan that makes a folder (the experiment's, or the first variant's), and the folder's entry in it.

        Args:
            kind: ``unlearn``, ``attack``, ``sample``, ``score``, ``reference``, ``inputs``, ``prepared`` or
                ``fetched``.
            folder: The folder's own name.

        Raises:
            ConfigError: If it is planned nowhere, naming the ablations that cannot be planned.
        """
        faults = []
        if folder in (own := planned(self.plan, kind)):
            return self.plan, own[folder]
        # Those that a target has asked for come first: they are built.
        for name in dict.fromkeys([*self._built, *self.entries]):
            try:
                variants = self.variants(name)
            except ConfigError as error:
                faults.append(str(error))
                continue
            for variant in variants.values():
                if folder in (found := planned(variant.plan, kind)):
                    return variant.plan, found[folder]
        raise ConfigError("\n".join([f"{self.where}: no {kind} '{folder}' in the experiment or an ablation", *faults]))

    def prepared_sets(self) -> dict[str, str]:
        """Every prepared set of the experiment or an ablation, and the member that makes it; nothing is planned."""
        found = {label: member.name for label, member in self.plan.experiment.prepared.items()}
        for entry in self.entries.values():
            for _, changed in entry.changes():
                for key, value in changed.items():
                    parent, _, label = key.partition(".")
                    if parent == "prepared" and isinstance(value, dict):
                        entries = {label: value} if label else value
                        found |= {name: own.get("set", name) for name, own in entries.items()}
        return found

    @cached_property
    def _values(self) -> dict[str, Any]:
        """The experiment's values with those that it extends."""
        return extended(self._written, where=self.plan.experiment.where)

    def _variant(self, name: str, text: str, overrides: dict[str, Any]) -> Variant:
        entry = self.entries[name]
        where = f"{self.where}.{name}" + (f": variant '{text}'" if text else "")
        values = copy.deepcopy(self._values)
        for key, value in overrides.items():
            self._check_key(key, where=where)
            _replace(values, key, value, where=where)
        if entry.tier:
            values["tier"] = entry.tier
        for tier in values["tiers"].values() if entry.seeds else ():
            tier["training_seeds"] = entry.seeds
        plan = Plan(Experiment(values, where=where))
        self._check_shown(entry, plan, where=where)
        config_hash = _identity(plan)
        return Variant(overrides, plan, config_hash, config_hash == _identity(self.plan))

    def _check_key(self, key: str, *, where: str) -> None:
        """A setting must be one that names of runs know of, so that equal names are equal runs."""
        first, *rest = key.split(".")
        # No run's name has the number of prompts, but a new list is sampled only by the ablation.
        is_new_list = first == "tiers" and rest[1:2] == ["prompts"] and len(rest) == 3
        if first == "tiers" and not (is_new_list and rest[2] not in self.plan.experiment.config.prompts):
            raise ConfigError(f"{where}: key '{key}': give 'seeds' or 'tier' beside the variants instead")
        if first in (*NOT_IN_NAMES[1:], *OF_THE_EXPERIMENT):
            raise ConfigError(f"{where}: key '{key}': '{first}' is the experiment's; change it there")

    def _check_shown(self, entry: AblationConfig, plan: Plan, *, where: str) -> None:
        experiment = plan.experiment
        shown: tuple[tuple[str, Any, Any], ...] = (
            ("models", entry.models, experiment.models),
            ("attacks", entry.attacks, experiment.attacks),
            ("metrics", entry.metrics, experiment.config.metrics),
        )
        for key, names, known in shown:
            for name in names:
                if name not in known:
                    raise ConfigError(f"{where}: key '{key}': none named '{name}'{nearest(name, known)}")
        folders = {asset.folder for asset in self.plan.assets.values()}
        for asset in plan.assets.values():
            if asset.origin == "digits" and asset.folder not in folders:
                raise ConfigError(f"{where}: assets.{asset.name}: the demo world is the experiment's; add it there")


def planned(plan: Plan, kind: str) -> dict[str, Any]:
    """A plan's entries of one kind by the name of their folder; see :meth:`Ablations.made`."""
    if kind in (origins := {"prepared": ("prepared",), "fetched": FETCHED}):
        return {Path(a.folder).name: name for name, a in plan.assets.items() if a.origin in origins[kind]}
    if kind == "reference":
        return {Path(folder).name: reference for folder, reference in plan.references.items()}
    if kind == "inputs":
        return {Path(file).parent.name: record for file, record in own_inputs.records(plan).items()}
    stages: dict[str, Any] = getattr(plan, kind)
    return stages


def _identity(plan: Plan) -> str:
    return digest({key: value for key, value in plan.experiment.resolved().items() if key not in ("tier", "tiers")})


def _replace(values: dict[str, Any], key: str, value: Any, *, where: str) -> None:
    """Puts a value where a dotted key says; an entry of a person's own is changed only where there is one.

    Raises:
        ConfigError: If the key leads through a value, or through an entry that is not there.
    """
    *parents, last = key.split(".")
    place = values
    for depth, parent in enumerate(parents):
        if depth == 1 and parents[0] in LABELLED and parent not in place:
            raise ConfigError(f"{where}: key '{key}': {parents[0]} has no '{parent}'{nearest(parent, place)}")
        if place.get(parent) is None:
            place[parent] = {}
        if not isinstance(place[parent], dict):
            known = ".".join(parents[: depth + 1])
            raise ConfigError(f"{where}: key '{key}': {known} is {place[parent]!r}, no mapping; give it whole")
        place = place[parent]
    place[last] = copy.deepcopy(value)  # a further key may change a part of it


def _text(value: Any) -> str:
    """A value as a table shows it."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, dict):
        return str(value["name"]) if set(value) == {"name"} else ", ".join(f"{k} {_text(v)}" for k, v in value.items())
    return str(value)
