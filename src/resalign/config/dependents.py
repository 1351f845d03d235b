"""What an experiment cannot have without some of its assets, and the changes that leave all of it out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from resalign.config import registry, scorer_needs
from resalign.config.concept import IMAGE_SETS, needs_of
from resalign.config.experiment import Experiment
from resalign.config.extension import merged
from resalign.config.references import split_reference
from resalign.config.strict import ConfigError


@dataclass(frozen=True)
class Dependents:
    """What depends on assets, by label.

    Attributes:
        rows, attacks, metrics: Of the tables.
        changes: Keys of a file that extends the experiment's and leaves them out, and what else takes from the assets.
    """

    rows: tuple[str, ...]
    attacks: tuple[str, ...]
    metrics: tuple[str, ...]
    changes: dict[str, Any]

    def __str__(self) -> str:
        """Such as ``rows esd, resalign; metrics fid``."""
        kinds = {"rows": self.rows, "attacks": self.attacks, "metrics": self.metrics}
        return "; ".join(f"{kind} {', '.join(labels)}" for kind, labels in kinds.items() if labels)


def dependents(experiment: Experiment, assets: Collection[str]) -> Dependents:
    """Everything that depends on some assets, by their names."""
    config, made = experiment.config, _made_of(experiment, assets)

    def takes(*references: str | None) -> bool:
        return any(reference is not None and split_reference(reference)[0] in made for reference in references)

    named = experiment.asset_references()
    concept = [
        key.partition(".")[2] for key, reference in named.items() if key.startswith("concept.") and takes(reference)
    ]
    pipelines = [label for label, reference in config.pipelines.items() if takes(reference)]
    imported = [label for label, member in experiment.unlearning.items() if takes(member.asset)]
    lost_needs = {key for key in concept if key not in IMAGE_SETS}
    asking = [label for label, member in experiment.unlearning.items() if lost_needs & {*needs_of(member.config)}]
    unlearned = experiment.unlearning if len(lost_needs) < len(concept) else [*imported, *asking]
    rows = [row for row in experiment.models if takes(config.model) or row in (*pipelines, *unlearned)]
    lists = [name for name in config.prompts if takes(*experiment.prompt_sources(name).values())]

    def is_lost(label: str) -> bool:
        data, prompts = experiment.attack_data[label], getattr(experiment.attacks[label].config, "prompts", None)
        return takes(*data.images.values()) or prompts in lists or (data.after is not None and is_lost(data.after))

    attacks = [label for label in experiment.attacks if is_lost(label)]
    scorers = [label for label, member in experiment.scorers.items() if takes(*member.assets.values())]
    metrics = [
        label
        for label, metric in experiment.metrics.items()
        if takes(experiment.references.get(label))
        or getattr(metric.config, "prompts", None) in lists
        or any(need.scorer in scorers for need in scorer_needs.needs_of(metric))
    ]
    sweeps = [label for label, swept in experiment.sweeps.items() if set(swept.values()) & set(attacks)]
    left_out = {
        "prepared": [name for name in experiment.prepared if name in made],
        "concept": concept,
        "pipelines": pipelines,
        "unlearning": [*imported, *asking],
        "attacks": [label for label in attacks if label in config.attacks],
        "sweeps": sweeps,
        "prompts": lists,
        "scorers": scorers,
        "metrics": metrics,
    }
    changes: dict[str, Any] = {key: dict.fromkeys(labels) for key, labels in left_out.items() if labels}
    changes |= {key: None for key in ("model", "reference") if takes(getattr(config, key))}
    return Dependents(tuple(rows), tuple(attacks), tuple(metrics), changes | _others(experiment, lists, metrics))


def fault_without(experiment: Experiment, changes: Mapping[str, Any]) -> str:
    """Why an experiment with these changes is none; '' if it is one."""
    try:
        Experiment(merged(experiment.values, dict(changes), where=experiment.where), where=experiment.where)
    except ConfigError as error:
        return str(error)
    return ""


def _made_of(experiment: Experiment, assets: Collection[str]) -> set[str]:
    """The assets, and the prepared sets that are made from them, at any depth."""
    made, before = set(assets), 0
    while len(made) > before:
        before = len(made)
        made |= {
            label
            for label in experiment.prepared
            if any(split_reference(source)[0] in made for source in experiment.sources(label).values())
        }
    return made


def _others(experiment: Experiment, lists: Collection[str], metrics: Collection[str]) -> dict[str, str]:
    """Another prompt list for the page's samples, and another metric that blurs them, where the present one goes."""
    config = experiment.config
    modules = {label: registry.member("metrics", metric.name) for label, metric in experiment.metrics.items()}
    flags = [label for label, module in modules.items() if hasattr(module, "per_image") and module.GROUP == "safety"]
    choices = {"gallery_prompts": (config.prompts, lists), "flagging_metric": (flags, metrics)}
    others = {key: [name for name in names if name not in gone] for key, (names, gone) in choices.items()}
    return {key: others[key][0] for key, (_, gone) in choices.items() if getattr(config, key) in gone and others[key]}
