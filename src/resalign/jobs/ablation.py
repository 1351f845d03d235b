"""What the ablations' rules tell their scripts, and the files that these read."""

from __future__ import annotations

import json
from typing import Any

from resalign.config import registry
from resalign.config.ablations import Ablations, Variant
from resalign.config.closure import import_closure
from resalign.config.experiment import BASE
from resalign.config.plan import NOT_ATTACKED, RESULTS
from resalign.jobs import report
from resalign.jobs.inputs import completion_files
from resalign.jobs.job import as_json

FOLDER = f"{RESULTS}/ablations"
COPIED = ("values.csv", "per_run.csv", "variants.json", "run.json")
SHOWN = ("table.csv", "table.tex", "figure.png", "figure.svg")


def files(name: str) -> list[str]:
    """Everything that an ablation's target makes."""
    return [f"{FOLDER}/{name}/{file}" for file in (*COPIED, *SHOWN)]


def measured_files(ablations: Ablations, name: str) -> list[str]:
    """Every file that an ablation is measured from: scores of images and of references, and the attacks' losses."""
    found: dict[str, None] = {}
    for variant in ablations.variants(name).values():
        for row in _rows(ablations, name, variant):
            folders = [row["folders"]["score"], *([row["before"]] if "before" in row else [])]
            of_seed = [folders[0].format(seed=seed) for seed in row["seeds"]]
            of_seed += [folder for before in folders[1:] for folder in before.values()]
            found |= dict.fromkeys(f"{folder}/scores.parquet" for folder in of_seed)
            if row["attack"] != NOT_ATTACKED:
                found |= {f"{row['folders']['attack'].format(seed=s)}/history.csv": None for s in row["seeds"]}
        found |= dict.fromkeys(f"{folder}/scores.parquet" for folder in _references(ablations, name, variant))
        data = variant.plan.experiment.attack_data
        heldout = [data[attack].heldout for attack in _attacks(ablations, name, variant)]
        found |= dict.fromkeys(completion_files(variant.plan, heldout))
    return list(found)


def metric_modules(ablations: Ablations, name: str) -> list[str]:
    """Modules of the metrics that are measured."""
    found = {
        member.name
        for variant in ablations.variants(name).values()
        for label, member in variant.plan.experiment.metrics.items()
        if label in _metrics(ablations, name, variant)
    }
    return sorted(f"resalign.metrics.{metric}" for metric in found)


def measuring_job(ablations: Ablations, name: str) -> str:
    """What scripts/ablation.py needs: of each variant what the report's job says, of what is shown alone."""
    entry, plan = ablations.entries[name], ablations.plan
    variants = []
    for text, variant in ablations.variants(name).items():
        whole = json.loads(report.report_job(variant.plan))
        metrics, rows = _metrics(ablations, name, variant), _rows(ablations, name, variant)
        measured = {key: whole[key] for key in ("models", "attacks", "base", "heldout", "compared", "references")}
        measured |= {"rows": rows, "sweeps": [], "main_attacks": None}
        measured["heldout"] = {attack: whole["heldout"][attack] for attack in _attacks(ablations, name, variant)}
        measured["metrics"] = [(label, settings) for label, settings in whole["metrics"] if label in metrics]
        variants.append(
            {
                "variant": text,
                "overrides": variant.overrides,
                "config_hash": variant.config_hash,
                "is_own": variant.is_own,
                "measured": measured,
            }
        )
    return as_json(
        {
            "experiment": plan.experiment.config.name,
            "ablation": name,
            "command": plan.command(f"{FOLDER}/{name}"),
            "report": plan.experiment.config.report.model_dump(mode="json"),
            "checkpoints": entry.checkpoints,
            "models": _models(ablations, name),
            "variants": variants,
        }
    )


def showing_code(ablations: Ablations, name: str) -> list[str]:
    """The code that lays tables out and draws figures; titles and kinds of metrics stand in their modules."""
    return [str(path) for path in import_closure("resalign.ablations.shown", *metric_modules(ablations, name))]


def showing_job(ablations: Ablations, name: str) -> str:
    """What a table or a figure needs besides the measured values."""
    entry = ablations.entries[name]
    first = next(iter(ablations.variants(name).values()))
    metrics = _metrics(ablations, name, first)
    return as_json(
        {
            **{key: getattr(entry, key) for key in ("title", "axis", "note", "checkpoints")},
            "models": _models(ablations, name),
            "order": _every_model(ablations, name),
            "base": BASE,
            "metrics": [(k, m.resolved()) for k, m in first.plan.experiment.metrics.items() if k in metrics],
            "shown": metrics,
            "attacks": [(k, d.dataset) for k, d in first.plan.experiment.attack_data.items()],
            "report": ablations.plan.experiment.config.report.model_dump(mode="json"),
        }
    )


def _models(ablations: Ablations, name: str) -> list[str]:
    """The models that are shown, in the experiment's order."""
    shown, every = ablations.entries[name].models, _every_model(ablations, name)
    own = {model for variant in ablations.variants(name).values() for model in variant.plan.experiment.models}
    return [model for model in every if model in own and (model in shown if shown else model != BASE)]


def _every_model(ablations: Ablations, name: str) -> list[str]:
    """The experiment's models in its order, by which each has its colour; then those that a variant alone has."""
    plans = [ablations.plan, *(variant.plan for variant in ablations.variants(name).values())]
    return list(dict.fromkeys(model for plan in plans for model in plan.experiment.models))


def _metrics(ablations: Ablations, name: str, variant: Variant) -> list[str]:
    """Labels of the metrics that are measured, the first safety metric first unless the ablation says otherwise."""
    measured = variant.plan.experiment.metrics  # all that the tier does not leave out
    return [label for label in ablations.entries[name].metrics or measured if label in measured]


def _attacks(ablations: Ablations, name: str, variant: Variant) -> list[str]:
    """Labels of the attacks that are shown."""
    return list(ablations.entries[name].attacks or variant.plan.experiment.attacks)


def _rows(ablations: Ablations, name: str, variant: Variant) -> list[dict[str, Any]]:
    """The states that are measured: what is shown, and the base after each attack where a metric compares with it."""
    experiment = variant.plan.experiment
    attacks = {NOT_ATTACKED, *_attacks(ablations, name, variant)}
    models = set(_models(ablations, name))
    members = [registry.member("metrics", experiment.metrics[m].name) for m in _metrics(ablations, name, variant)]
    compares = any(hasattr(member, "of_attack") for member in members)
    return [
        row
        for row in report.report_rows(variant.plan)
        if row["attack"] in attacks
        and (row["model"] in models or (compares and row["model"] == BASE and row["attack"] != NOT_ATTACKED))
    ]


def _references(ablations: Ablations, name: str, variant: Variant) -> list[str]:
    """Folders of the scores of real images that the measured metrics compare the shown states with."""
    attacks = {row["attack"] for row in _rows(ablations, name, variant)}
    compared = variant.plan.compared
    named = {
        reference
        for label in _metrics(ablations, name, variant)
        for attack, reference in compared.get(label, {}).items()
        if attack in attacks
    }
    return [folder for folder, reference in variant.plan.references.items() if reference in named]
