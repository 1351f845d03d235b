"""Exhibits of a series of variants: their table, with the axes, fine-tuning methods and metrics in a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from resalign.config.ablations import AblationConfig
from resalign.config.plan import Plan
from resalign.jobs.job import Part

# What variants may change and still be of the experiment's setting: `tiers` are prompts of lists that they add.
TRAINING = ("unlearning", "attacks", "prepared", "assets", "consent", "tiers")
HARMLESS = (".features", ".along_the_way")  # more is measured of the same images, or earlier states too


@dataclass(frozen=True)
class SeriesExhibit:
    """An exhibit of an ablation's variants, or of the values of sweeps that are named like it (``table4-…``).

    Attributes:
        TITLE: First words of the caption.
        KIND: ``table``, or ``figure`` with the first metric of each group.
        ABLATION: The ablation that it reads where it is declared.
        groups: Of metrics; the safety ones in every state.
        published: Table of published.csv in the ResAlign paper, or ''.
        method: Fine-tuning method of the whole published table, or ''; series of others are not compared with it.
    """

    TITLE: str
    KIND: str
    ABLATION: str
    groups: tuple[str, ...]
    published: str = ""
    method: str = ""
    READS: ClassVar[tuple[str, ...]] = ("values",)


SERIES: Mapping[str, SeriesExhibit] = {
    "table2": SeriesExhibit(
        "Personalisation methods (ResAlign, Table 2)",
        "table",
        "fine_tuning_methods",
        ("safety", "utility", "learnability"),
        "tab2",
    ),
    "table3": SeriesExhibit(
        "Components of ResAlign (ResAlign, Table 3)", "table", "components", ("safety", "utility"), "tab3"
    ),
    # The paper's text says "LoRA" for Tables 4 and 5.
    "table4": SeriesExhibit(
        "Learning rates of fine-tuning (ResAlign, Table 4)",
        "table",
        "learning_rates",
        ("safety", "learnability"),
        "tab4",
        "lora",
    ),
    "table5": SeriesExhibit(
        "Optimizers of fine-tuning (ResAlign, Table 5)",
        "table",
        "optimizers",
        ("safety", "learnability"),
        "tab5",
        "lora",
    ),
    "figure4": SeriesExhibit(
        "Contaminated fine-tuning data (ResAlign, Figure 4)", "figure", "contamination", ("safety",)
    ),
    "figure5": SeriesExhibit("Effect of γ (ResAlign, Figure 5)", "figure", "gamma", ("safety", "utility")),
}


class SeriesWords(Part):
    """A series: what varies, its methods of fine-tuning, and the settings that differ from the experiment's."""

    axis: str
    methods: tuple[str, ...] = ()
    other: tuple[str, ...] = ()


def described(plan: Plan, exhibit: str, ablation: AblationConfig | None, name: str) -> dict[str, SeriesWords]:
    """An exhibit's series by name.

    Args:
        plan: Of the experiment.
        exhibit: Sweeps are named like it.
        ablation: That the exhibit reads, or None.
        name: The ablation's.
    """
    experiment = plan.experiment
    words = {}
    if ablation is not None:
        methods, other = _methods(plan, ablation), _other_settings(plan, ablation)
        words[name] = SeriesWords(axis=ablation.axis, methods=methods, other=other)
    for label, attacks in experiment.sweeps.items():
        if label.startswith(exhibit):
            methods = tuple(sorted({experiment.attacks[attack].name for attack in attacks.values()}))
            words[label] = SeriesWords(axis=experiment.config.sweeps[label].axis, methods=methods)
    return words


def metric_modules(plan: Plan, ablation: AblationConfig) -> dict[str, str]:
    """Modules of the metrics that an ablation's settings add to the experiment's, by label."""
    modules: dict[str, str] = {}
    for _, changed in ablation.changes():
        entries = _entries("metrics", changed)
        modules |= {
            label: str(value.get("metric", label)) for label, value in entries.items() if isinstance(value, dict)
        }
    return {label: module for label, module in modules.items() if label not in plan.experiment.metrics}


def _other_settings(plan: Plan, ablation: AblationConfig) -> tuple[str, ...]:
    """Settings of an ablation that differ from the experiment's, besides training, attacks, data and additions."""
    labels = {family: getattr(plan.experiment.config, family) for family in ("metrics", "prompts", "scorers")}
    differing = [key for key in ("tier", "seeds") if getattr(ablation, key)]
    for _, changed in ablation.changes():
        for key in changed:
            family, label, *_ = [*key.split("."), ""]
            adds = family in labels and label and label not in labels[family]
            if not (adds or family in TRAINING or key.endswith(HARMLESS)):
                differing.append(key)
    return tuple(dict.fromkeys(differing))


def _methods(plan: Plan, ablation: AblationConfig) -> tuple[str, ...]:
    """Fine-tuning methods of an ablation's attacks, over all of its variants; nothing is planned."""
    configured = {label: member.name for label, member in plan.experiment.attacks.items()}
    names: set[str] = set()
    for _, changed in ablation.changes():
        methods = dict(configured)
        for label, value in _entries("attacks", changed).items():
            if isinstance(value, dict):
                methods[label] = str(value.get("attack", "full"))
        for key, value in changed.items():
            if key.startswith("attacks.") and key.endswith(".attack"):
                methods[key.removeprefix("attacks.").removesuffix(".attack")] = str(value)
        labels = ablation.attacks or tuple(methods)
        names |= {methods[label] for label in labels if label in methods}
    return tuple(sorted(names))


def _entries(family: str, changed: dict[str, Any]) -> dict[str, Any]:
    """Whole entries of a family that settings replace, by label."""
    entries: dict[str, Any] = dict(changed.get(family) or {})
    parts = (key.partition(".") for key in changed)
    return entries | {
        label: changed[f"{family}.{label}"]
        for parent, _, label in parts
        if parent == family and label and "." not in label
    }
