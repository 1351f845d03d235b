"""Sweeps: series of attacks that are shown together, such as one attack at several learning rates."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from resalign.config.strict import ConfigError, Strict, nearest


class SweepConfig(Strict):
    """A series of attacks: one entry of ``attacks`` with some keys changed (``values``), or entries by name."""

    title: str
    axis: str = Field("attack", description="what changes from one value to the next")
    note: str = Field("", description="text below the table")
    attack: str | None = Field(None, description="entry of `attacks` that every value changes")
    values: dict[str, dict[str, Any]] = Field({}, description="the changed keys by the value's name; {} for none")
    attacks: dict[str, str] = Field({}, description="in place of `attack` and `values`: entries of `attacks` by name")
    metrics: tuple[str, ...] = Field((), description="metrics of the table; none: the first safety metric")

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if bool(self.values) == bool(self.attacks) or bool(self.values) != (self.attack is not None):
            raise ValueError("give 'attack' and 'values', or 'attacks'")
        return self


def expanded(
    attacks: dict[str, dict[str, Any]], sweeps: dict[str, SweepConfig], *, where: str
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, str]]]:
    """Every attack that the sweeps need, and their labels by sweep and value.

    A value's attack is labelled ``<attack>-<value>``, and has its entry's data set; one whose settings are those of an
    entry that is there already is that entry, and is run once.

    Args:
        attacks: The entries as they are written, by label.
        sweeps: By label.
        where: What to call the configuration in an error.

    Raises:
        ConfigError: If a sweep names an entry that there is not, or two different entries would have one label.
    """
    entries = dict(attacks)
    found: dict[str, dict[str, str]] = {}
    for label, sweep in sweeps.items():
        for name in (*sweep.attacks.values(), *([sweep.attack] if sweep.attack else [])):
            if name not in attacks:
                raise ConfigError(f"{where}: sweeps.{label}: no attack named '{name}'{nearest(name, attacks)}")
        found[label] = dict(sweep.attacks)
        for value, changes in sweep.values.items():
            base = {"dataset": sweep.attack, **attacks[str(sweep.attack)]}
            entry, own = {**base, **changes}, f"{sweep.attack}-{value}"
            same = (key for key, other in entries.items() if {"dataset": key, **other} == entry)
            chosen = next(same, own)
            if chosen == own and own in entries and entries[own] != entry:
                raise ConfigError(f"{where}: sweeps.{label}.{value}: another attack is '{own}'; rename the value")
            if chosen in found[label].values():
                raise ConfigError(
                    f"{where}: sweeps.{label}.{value}: attack '{chosen}' stands there already; take one out"
                )
            entries.setdefault(chosen, entry)
            found[label][value] = chosen
    return entries, found
