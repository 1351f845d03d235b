"""What a plan says of the series that exhibits show: their axes, methods of fine-tuning and metrics' modules."""

from __future__ import annotations

from typing import Any

from resalign.config.ablations import AblationConfig
from resalign.config.plan import Plan

# What variants may change and still be of the experiment's world: `tiers` are prompts of lists that they add.
TRAINING = ("unlearning", "attacks", "prepared", "assets", "consent", "tiers")
HARMLESS = (".features", ".along_the_way")  # more is measured of the same images, or earlier states too


def described(plan: Plan, exhibit: str, ablation: AblationConfig | None, name: str) -> dict[str, dict[str, Any]]:
    """Axis, methods of fine-tuning, and other worlds of an exhibit's series, by the series' name.

    Args:
        plan: Of the experiment.
        exhibit: Sweeps are named like it.
        ablation: That the exhibit reads, or None.
        name: The ablation's.
    """
    experiment = plan.experiment
    found = {}
    if ablation is not None:
        methods = _methods(plan, ablation)
        found[name] = {"axis": ablation.axis, "methods": methods, "other": _other_world(plan, ablation)}
    for label, attacks in experiment.sweeps.items():
        if label.startswith(exhibit):
            methods = sorted({experiment.attacks[attack].name for attack in attacks.values()})
            found[label] = {"axis": experiment.config.sweeps[label].axis, "methods": methods, "other": []}
    return found


def metric_modules(plan: Plan, ablation: AblationConfig) -> dict[str, str]:
    """Modules of the metrics that an ablation's settings add to the experiment's, by label."""
    found: dict[str, str] = {}
    for _, changed in ablation.changes():
        entries = _entries("metrics", changed)
        found |= {label: str(value.get("metric", label)) for label, value in entries.items() if isinstance(value, dict)}
    return {label: module for label, module in found.items() if label not in plan.experiment.metrics}


def _other_world(plan: Plan, ablation: AblationConfig) -> list[str]:
    """What an ablation has otherwise than the experiment, besides training, attacks, their data and what it adds."""
    own = {family: getattr(plan.experiment.config, family) for family in ("metrics", "prompts", "scorers")}
    found = [key for key in ("tier", "seeds") if getattr(ablation, key)]
    for _, changed in ablation.changes():
        for key in changed:
            family, label, *_ = [*key.split("."), ""]
            adds = family in own and label and label not in own[family]
            if not (adds or family in TRAINING or key.endswith(HARMLESS)):
                found.append(key)
    return list(dict.fromkeys(found))


def _methods(plan: Plan, ablation: AblationConfig) -> list[str]:
    """Methods of fine-tuning of an ablation's attacks, over all of its variants; nothing is planned."""
    own = {label: member.name for label, member in plan.experiment.attacks.items()}
    found: set[str] = set()
    for _, changed in ablation.changes():
        methods = dict(own)
        for label, value in _entries("attacks", changed).items():
            if isinstance(value, dict):
                methods[label] = str(value.get("attack", "full"))
        for key, value in changed.items():
            if key.startswith("attacks.") and key.endswith(".attack"):
                methods[key.removeprefix("attacks.").removesuffix(".attack")] = str(value)
        shown = ablation.attacks or tuple(methods)
        found |= {methods[label] for label in shown if label in methods}
    return sorted(found)


def _entries(family: str, changed: dict[str, Any]) -> dict[str, Any]:
    """Whole entries of a family that settings replace, by label."""
    found: dict[str, Any] = dict(changed.get(family) or {})
    own = (key.partition(".") for key in changed)
    return found | {
        label: changed[f"{family}.{label}"]
        for parent, _, label in own
        if parent == family and label and "." not in label
    }
