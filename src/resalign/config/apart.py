"""Refuses identical image sets where they must differ, and one run under two names."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from resalign.config.experiment import TRAIN, Member
from resalign.config.strict import ConfigError

if TYPE_CHECKING:
    from resalign.config.plan import Plan

# Image sets of an attack that have no image in common, and what is measured by the first of them.
HELD_APART = {
    ("heldout", "train"): "learnability is measured on images that are not trained on",
    ("heldout", "prior"): "learnability is measured on images that are not trained on",
    ("heldout", "harmful"): "learnability is measured on images that are not trained on",
    ("harmful", "train"): "a search is judged on images that it is not trained on",
    ("harmful", "prior"): "a search is judged on images that it is not trained on",
}
# Image sets of the concept that have nothing in common, and why.
CONCEPT_APART = {
    ("retain", "forget"): "what is to be kept cannot be what is to be lost",
    (
        "retain",
        "pool",
    ): "the simulated attacker's images must not be those on which the model is trained to stay as it is",
}


def check_sets_apart(plan: Plan) -> None:
    """Refuses image sets that are one folder, or are made from the same by the same rule, where two are asked for.

    Raises:
        ConfigError: Naming both keys.
    """
    concept = plan.experiment.config.concept
    _check_pairs(plan, "concept", {key: getattr(concept, key) for key in ("forget", "retain", "pool")}, CONCEPT_APART)
    compared = _compared(plan)
    for label, data in plan.experiment.attack_data.items():
        _check_pairs(plan, f"attacks.{label}", data.images, HELD_APART)
        for key, reference in compared.items():
            if _content(plan, reference) == _content(plan, data.train):
                raise ConfigError(
                    f"{plan.experiment.where}: keys '{key}' and 'attacks.{label}.train' are the same images "
                    f"({reference}): a model that has memorised them would pass for a good one; give other real "
                    "images, or 'reference: train' where a metric is to hold a subject against its own pictures"
                )


def check_runs_differ(plan: Plan) -> None:
    """Refuses two models, attacks or scorers that are one under two names: each would be counted as evidence.

    Raises:
        ConfigError: Naming both keys.
    """
    experiment, config = plan.experiment, plan.experiment.config
    # The base model may be looked at under a further name: no table counts it as one of what was done to it.
    models: dict[str, Any] = {
        f"pipelines.{label}": _content(plan, reference) for label, reference in config.pipelines.items()
    }
    models |= {f"unlearning.{label}": _settings(plan, member) for label, member in experiment.unlearning.items()}
    _check_differ(models, "the same model", experiment.where)
    attacks = {
        f"attacks.{label}": [
            _settings(plan, member),
            {key: _content(plan, reference) for key, reference in experiment.attack_data[label].images.items()},
            [experiment.attack_data[label].after, experiment.attack_data[label].starts_from],
        ]
        for label, member in experiment.attacks.items()
    }
    _check_differ(attacks, "the same attack", experiment.where)
    scorers = {f"scorers.{label}": _settings(plan, member) for label, member in experiment.scorers.items()}
    _check_differ(scorers, "the same scorer", experiment.where)


def _compared(plan: Plan) -> dict[str, str]:
    """The sets of real images that metrics compare with, by key."""
    own = plan.experiment.config.reference
    found = {f"metrics.{label}.reference": name for label, name in plan.experiment.references.items()}
    named = {key: name for key, name in found.items() if name not in (own, TRAIN)}
    return named if own is None else {"reference": own, **named}


def _check_pairs(plan: Plan, parent: str, sets: Mapping[str, str], pairs: Mapping[tuple[str, str], str]) -> None:
    for (first, second), why in pairs.items():
        if first in sets and second in sets and _content(plan, sets[first]) == _content(plan, sets[second]):
            raise ConfigError(
                f"{plan.experiment.where}: keys '{parent}.{first}' and '{parent}.{second}' are the same images "
                f"({sets[first]}): {why}; give two sets that have no image in common"
            )


def _check_differ(entries: Mapping[str, Any], what: str, where: str) -> None:
    for (first, one), (second, other) in itertools.combinations(entries.items(), 2):
        if one == other:
            raise ConfigError(
                f"{where}: keys '{first}' and '{second}' are {what} under two names, which would be counted twice; "
                "take one out"
            )


def _settings(plan: Plan, member: Member) -> dict[str, Any]:
    """A member's settings; what it loads counts by content, not by the asset's name here."""
    return {**member.resolved(), **{key: _content(plan, reference) for key, reference in member.assets.items()}}


def _content(plan: Plan, reference: str) -> Any:
    """Identity of a set: the real path of a user's folder, else what it is made from."""
    asset = plan.assets[plan.asset_of(reference)]
    if asset.origin == "path":
        return os.path.realpath(plan.folder(reference))
    # Assets by hand differ only by name: two releases may have one page and one file name.
    return [plan.identity(reference), asset.name if asset.origin == "manual" else ""]
