"""Ablations: the jobs that measure and show one, and the files that they write."""

from __future__ import annotations

from typing import Any

from resalign.config import registry
from resalign.config.ablations import Ablations, Variant
from resalign.config.experiment import BASE
from resalign.config.plan import RESULTS
from resalign.config.report import ReportConfig
from resalign.config.shape import NOT_ATTACKED
from resalign.jobs.exhibit import SUFFIXES
from resalign.jobs.inputs import Input
from resalign.jobs.job import Job, Part
from resalign.jobs.measure import Measurable, Scored, measured

FOLDER = f"{RESULTS}/ablations"
COPIED = ("values.csv", "per_run.csv", "variants.json", "run.json")
SHOWN = (*(f"table{suffix}" for suffix in SUFFIXES["table"]), "figure.png", "figure.svg")


class VariantJob(Part):
    """A variant: its changes of the configuration, and its runs."""

    variant: str
    overrides: dict[str, Any]
    config_hash: str
    is_own: bool
    measured: Measurable


class AblationJob(Job):
    """The measuring of an ablation.

    Attributes:
        experiment, ablation: Names.
        command: Makes the ablation again.
        report: Settings of intervals.
        checkpoints: Whether the variants are the steps of one fine-tuning.
        models: Those that are shown.
        variants: In the order of the tables.
    """

    experiment: str
    ablation: str
    command: str
    report: ReportConfig
    checkpoints: bool
    models: tuple[str, ...]
    variants: tuple[VariantJob, ...]

    @classmethod
    def of(cls, ablations: Ablations, name: str) -> AblationJob:
        """The job of one ablation."""
        plan, variants = ablations.plan, ablations.variants(name)
        return cls(
            experiment=plan.experiment.config.name,
            ablation=name,
            command=plan.command(f"{FOLDER}/{name}"),
            report=plan.experiment.config.report,
            checkpoints=ablations.entries[name].checkpoints,
            models=_models(ablations, name),
            variants=tuple(
                VariantJob(
                    variant=text,
                    overrides=variant.overrides,
                    config_hash=variant.config_hash,
                    is_own=variant.is_own,
                    measured=_measured(ablations, name, variant),
                )
                for text, variant in variants.items()
            ),
        )

    def inputs(self) -> list[str]:
        """Everything that a variant is measured from."""
        return sorted({file for variant in self.variants for file in variant.measured.inputs()})

    @property
    def minutes(self) -> int:
        """Run time to ask for."""
        return sum(variant.measured.minutes for variant in self.variants)


class AblationShownJob(Job):
    """The table and figure of an ablation.

    Attributes:
        ablation: Its name.
        values: The measured values.
        title, axis, note: Words of table and figure.
        checkpoints: Whether the variants are the steps of one fine-tuning.
        order: Every model in the experiment's order, by which each has its colour.
        base: The model before unlearning.
        titles: Names of models, data sets and attacks to how they are shown.
        metrics: Label and settings of the metrics that are shown, in order.
        attacks: Label and data set of each attack.
        report: Settings of intervals and figures.
    """

    ablation: str
    values: Input
    title: str
    axis: str
    note: str
    checkpoints: bool
    order: tuple[str, ...]
    base: str
    titles: dict[str, str] = {}
    metrics: tuple[tuple[str, dict[str, Any]], ...]
    attacks: tuple[tuple[str, str], ...]
    report: ReportConfig

    @classmethod
    def of(cls, ablations: Ablations, name: str, values: str) -> AblationShownJob:
        """The job of one ablation, whose measured values are in a file."""
        entry = ablations.entries[name]
        first = next(iter(ablations.variants(name).values()))
        metrics = first.plan.experiment.metrics
        return cls(
            ablation=name,
            values=Input.file(values),
            title=entry.title,
            axis=entry.axis,
            note=entry.note,
            checkpoints=entry.checkpoints,
            order=_every_model(ablations, name),
            base=BASE,
            titles=ablations.plan.experiment.titles,
            metrics=tuple((label, metrics[label].resolved()) for label in _metrics(ablations, name, first)),
            attacks=tuple((label, data.dataset) for label, data in first.plan.experiment.attack_data.items()),
            report=ablations.plan.experiment.config.report,
        )


def files(name: str) -> list[str]:
    """Everything that an ablation's target makes."""
    return [f"{FOLDER}/{name}/{file}" for file in (*COPIED, *SHOWN)]


def metric_modules(ablations: Ablations, name: str) -> list[str]:
    """Modules of the metrics that are measured."""
    metrics = {
        variant.plan.experiment.metrics[label].name
        for variant in ablations.variants(name).values()
        for label in _metrics(ablations, name, variant)
    }
    return sorted(f"resalign.metrics.{metric}" for metric in metrics)


def _measured(ablations: Ablations, name: str, variant: Variant) -> Measurable:
    """The runs of a variant, without what is not shown."""
    whole = measured(variant.plan)
    rows, labels = _rows(ablations, name, variant), _metrics(ablations, name, variant)
    attacks = {row.attack for row in rows}
    compared = {
        label: {attack: reference for attack, reference in whole["compared"][label].items() if attack in attacks}
        for label in labels
        if label in whole["compared"]
    }
    references = {reference for of_attack in compared.values() for reference in of_attack.values()}
    return Measurable(
        **{key: whole[key] for key in ("models", "attacks", "base")},
        compared=compared,
        heldout={attack: whole["heldout"][attack] for attack in _attacks(ablations, name, variant)},
        metrics=tuple((label, settings) for label, settings in whole["metrics"] if label in labels),
        references={reference: path for reference, path in whole["references"].items() if reference in references},
        rows=rows,
    )


def _models(ablations: Ablations, name: str) -> tuple[str, ...]:
    """The models that are shown, in the experiment's order."""
    shown, every = ablations.entries[name].models, _every_model(ablations, name)
    available = {model for variant in ablations.variants(name).values() for model in variant.plan.experiment.models}
    return tuple(model for model in every if model in available and (model in shown if shown else model != BASE))


def _every_model(ablations: Ablations, name: str) -> tuple[str, ...]:
    """The experiment's models in its order, by which each has its colour; then those that only a variant has."""
    plans = [ablations.plan, *(variant.plan for variant in ablations.variants(name).values())]
    return tuple(dict.fromkeys(model for plan in plans for model in plan.experiment.models))


def _metrics(ablations: Ablations, name: str, variant: Variant) -> list[str]:
    """Labels of the metrics that are measured, the first safety metric first unless the ablation has another order."""
    metrics = variant.plan.experiment.metrics  # all that the tier does not leave out
    return [label for label in ablations.entries[name].metrics or metrics if label in metrics]


def _attacks(ablations: Ablations, name: str, variant: Variant) -> list[str]:
    """Labels of the attacks that are shown."""
    return list(ablations.entries[name].attacks or variant.plan.experiment.attacks)


def _rows(ablations: Ablations, name: str, variant: Variant) -> tuple[Scored, ...]:
    """The states that are measured: what is shown, and the base after each attack where a metric compares with it."""
    experiment = variant.plan.experiment
    attacks = {NOT_ATTACKED, *_attacks(ablations, name, variant)}
    models = set(_models(ablations, name))
    members = [registry.member("metrics", experiment.metrics[m].name) for m in _metrics(ablations, name, variant)]
    compares = any(hasattr(member, "of_attack") for member in members)
    return tuple(
        row
        for row in measured(variant.plan)["rows"]
        if row.attack in attacks
        and (row.model in models or (compares and row.model == BASE and row.attack != NOT_ATTACKED))
    )
