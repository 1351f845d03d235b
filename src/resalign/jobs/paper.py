"""What the exhibits' rules make and read: which exhibits an experiment has, and what the others would need."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Iterable, Mapping
from types import ModuleType
from typing import Any

from resalign.config import registry
from resalign.config.ablations import AblationConfig, Ablations
from resalign.config.experiment import BASE
from resalign.config.plan import Plan, load_plan
from resalign.jobs import report as report_jobs
from resalign.jobs import series as series_jobs
from resalign.jobs.inputs import code, completion_files
from resalign.jobs.job import as_json

FAMILY = "exhibits"
CONTENTS = "contents"  # the exhibit that lists all of them
SUFFIXES = {"table": ("csv", "tex"), "figure": ("csv", "png", "svg"), "macros": ("tex",)}
# The experiment that the published numbers are of, what a further one may change all the same, and of which families it
# may have more than that one.
PAPERS = "config/config.yaml"
FREE = (
    *("extends", "name", "title", "subtitle", "consent", "sweeps", "main", "resources", "scoring_batch_size"),
    *("tier", "tiers", "report", "gallery", "flags", "detector_audit", "artifact", "theory"),
)
MORE = ("unlearning", "attacks")
FRAMES = ("values", "per_run", "prompts", "thresholds", "samples")  # of the rule measure, beside names.json


@functools.cache
def declared_ablations(plan: Plan) -> Mapping[str, AblationConfig]:
    """The experiment's ablations by name, whose values.csv a rule makes; the file is read once."""
    return Ablations(plan, {}).entries


def declared_theory(plan: Plan) -> tuple[str, ...]:
    """Frames under theory/ that exhibits may read: slices go along what an attack has moved."""
    return ("slices",) if plan.experiment.attacks else ()


# --- the measured frames ----------------------------------------------------------------------------------------------


def measured_folder(plan: Plan) -> str:
    """Where the measured frames lie."""
    return f"results/{plan.experiment.config.name}/measured"


def measure_files(plan: Plan) -> list[str]:
    """Scores of all runs and of real images, and the attacks' training curves."""
    rows = report_jobs.report_rows(plan)
    folders = [{k: f.format(seed=s) for k, f in row["folders"].items()} for row in rows for s in row["seeds"]]
    scores = [f"{folder['score']}/scores.parquet" for folder in folders]
    curves = [f"{folder['attack']}/history.csv" for folder in folders if "attack" in folder]
    heldout = completion_files(plan, [data.heldout for data in plan.experiment.attack_data.values()])
    return [*scores, *dict.fromkeys(curves), *(f"{folder}/scores.parquet" for folder in plan.references), *heldout]


def measure_job(plan: Plan) -> str:
    """What scripts/measure.py needs: the report's job without what the page alone shows."""
    return as_json(measured_by(json.loads(report_jobs.report_job(plan)), methods(plan)))


def measured_by(report: Mapping[str, Any], methods: Mapping[str, str]) -> dict[str, Any]:
    """What scripts/measure.py needs, of the report's job."""
    kept = ("models", "base", "attacks", "sweeps", "main_attacks", "heldout", "metrics", "flags", "report")
    return {**{key: report[key] for key in (*kept, "references", "compared", "rows")}, "methods": dict(methods)}


def methods(plan: Plan) -> dict[str, str]:
    """Unlearning method by model."""
    return {BASE: BASE, **{model: member.name for model, member in plan.experiment.unlearning.items()}}


# --- the exhibits -----------------------------------------------------------------------------------------------------


def exhibits() -> list[str]:
    """Every exhibit, by the names of their files."""
    return registry.members(FAMILY)


def needs(plan: Plan, name: str) -> str:
    """What an experiment lacks for an exhibit, or ''."""
    module = registry.member(FAMILY, name)
    if getattr(module, "ATTACKED", False) and not plan.experiment.attacks:
        return "an attack: give the experiment an entry under 'attacks'"
    if getattr(module, "RULED", False) and not _has_rules(plan):
        return "a safety metric whose detectors have thresholds, such as ip"
    ablation = getattr(module, "ABLATION", None)
    if ablation and not _has_ablation(plan, module):
        swept = [label for label in plan.experiment.sweeps if label.startswith(name)]
        if not swept and getattr(module, "ABLATION_ALONE", True):
            return f"the ablation '{ablation}', declared in config/ablations.yaml, or a sweep called '{name}-...'"
    missing = [frame for frame in getattr(module, "THEORY", ()) if frame not in declared_theory(plan)]
    return f"theory/{missing[0]}.csv: the theory of this experiment" if missing else ""


def _has_rules(plan: Plan) -> bool:
    """Whether a safety metric flags images by detectors' thresholds, which can be swept."""
    return any(
        module.GROUP == "safety"
        and hasattr(module, "per_image")
        and (hasattr(config, "rules") or hasattr(config, "rule"))
        for module, config in (
            (registry.member("metrics", metric.name), metric.config) for metric in plan.experiment.metrics.values()
        )
    )


def _has_ablation(plan: Plan, module: ModuleType) -> bool:
    return getattr(module, "ABLATION", None) in declared_ablations(plan)


def _ablations(plan: Plan, name: str) -> dict[str, tuple[str, AblationConfig | None]]:
    """The ablation, if there is one, behind an exhibit of a series, by that exhibit."""
    return {other: (ablation, declared_ablations(plan).get(ablation)) for other, ablation in _series(name).items()}


def _series(name: str) -> dict[str, str]:
    """Names of the ablations behind an exhibit, by the exhibit that shows each: itself, or those of its SERIES."""
    shown = {
        other: registry.member(FAMILY, other) for other in getattr(registry.member(FAMILY, name), "SERIES", (name,))
    }
    return {other: module.ABLATION for other, module in shown.items() if hasattr(module, "ABLATION")}


def planned(plan: Plan) -> list[str]:
    """Exhibits that the experiment has all inputs of."""
    return [name for name in exhibits() if not needs(plan, name)]


def left_out(plan: Plan) -> dict[str, str]:
    """The other exhibits, and what each one needs."""
    return {name: lack for name in exhibits() if (lack := needs(plan, name))}


def paper_files(plan: Plan) -> list[str]:
    """Every file of the target ``paper``."""
    folder = f"results/{plan.experiment.config.name}/paper"
    return [f"{folder}/{file}" for name in planned(plan) for file in files_of(name)]


def frames_of(plan: Plan, name: str) -> dict[str, str]:
    """The frames that an exhibit reads, by name."""
    return frames(f"results/{plan.experiment.config.name}", name, declared_ablations(plan))


def frames(result: str, name: str, ablations: Collection[str]) -> dict[str, str]:
    """The frames that an exhibit reads, by name.

    Args:
        result: Folder of the experiment's result.
        name: Of the exhibit.
        ablations: Those that there are.
    """
    module = registry.member(FAMILY, name)
    found = {frame: f"{result}/measured/{frame}.csv" for frame in module.READS}
    if module.READS:
        found["names"] = f"{result}/measured/names.json"
    for exhibit, ablation in _series(name).items():
        if ablation in ablations:
            found["ablation" if exhibit == name else exhibit] = f"{result}/ablations/{ablation}/values.csv"
    return found | {frame: f"{result}/theory/{frame}.csv" for frame in getattr(module, "THEORY", ())}


def exhibit_job(plan: Plan, name: str) -> str:
    """What scripts/exhibit.py needs."""
    report = plan.experiment.config.report.model_dump(mode="json")
    return as_json({"files": frames_of(plan, name), "report": report, **words(plan, name)})


def files_of(name: str) -> list[str]:
    """Names of an exhibit's files."""
    return [f"{name}.{suffix}" for suffix in SUFFIXES[registry.member(FAMILY, name).KIND]]


def words(plan: Plan, name: str) -> dict[str, Any]:
    """What an exhibit says beside its frames; only the list of contents knows of the other exhibits."""
    series: dict[str, Any] = {}
    for exhibit, (ablation, entry) in _ablations(plan, name).items():
        series |= series_jobs.described(plan, exhibit, entry, ablation)
    listed = [
        {
            "exhibit": other,
            "title": registry.member(FAMILY, other).TITLE,
            "files": ", ".join(files_of(other)),
            "left_out": needs(plan, other),
        }
        for other in (exhibits() if name == CONTENTS else ())
    ]
    return {
        "another_world": another_world(plan),
        "series": series,
        "metric_modules": _metric_modules(plan, name),
        "plan": listed,
    }


@functools.cache
def another_world(plan: Plan) -> str:
    """Why published numbers are not of this experiment's world, or '' where they are.

    They are where it says so, at the paper's size, and resolves to what config/config.yaml does: the same model,
    concept, training, prompts, sampling, scorers and metrics. Models and attacks may be more, and the report may look
    otherwise.
    """
    config = plan.experiment.config
    if config.report.published != "comparable":
        return "the experiment is not the paper's"
    if plan.tier != "paper":
        return f"tier '{plan.tier}', not 'paper'"
    papers, own = _of_paper(), _of_world(plan)
    differing = [key for key in papers if own[key] != papers[key] and key not in MORE]
    for key in MORE:
        differing += [f"{key}.{label}" for label, entry in papers[key].items() if own[key].get(label) != entry]
    return f"other {', '.join(differing)} than {PAPERS}'s" if differing else ""


@functools.cache
def _of_paper() -> dict[str, Any]:
    return _of_world(load_plan(PAPERS, {"tier": "paper"}))


def _of_world(plan: Plan) -> dict[str, Any]:
    """The resolved settings that numbers are of; the main table's attacks, and the tier in force."""
    experiment = plan.experiment
    found = {key: value for key, value in experiment.resolved().items() if key not in FREE}
    attacks = list(experiment.config.main or experiment.config.attacks)
    return {**found, "main": attacks, "tier": experiment.tier.model_dump(mode="json")}


def _metric_modules(plan: Plan, name: str) -> dict[str, str]:
    """Modules of the metrics that an exhibit's ablations alone have, by label."""
    found: dict[str, str] = {}
    for _, entry in _ablations(plan, name).values():
        found |= series_jobs.metric_modules(plan, entry) if entry is not None else {}
    return found


def exhibit_code(plan: Plan, name: str) -> list[str]:
    """Code inputs of one exhibit: those of its ablations' metrics, and the published numbers, where it shows some."""
    metrics = sorted(f"resalign.metrics.{metric}" for metric in set(_metric_modules(plan, name).values()))
    return with_published(code("exhibit", f"resalign.{FAMILY}.{name}", *metrics))


def with_published(code: Iterable[str]) -> list[str]:
    """Files of code, and the published numbers, where the module that reads them is one."""
    found, module = list(code), "src/resalign/exhibits/_published.py"
    return [*found, module.replace(".py", ".csv")] if module in found else found


def message(plan: Plan) -> str:
    """What the target says when it is done: which exhibits are left out, and what they need."""
    lines = [f"paper: {len(planned(plan))} exhibits; listed in paper/contents.csv"]
    return "\n".join([*lines, *(f"left out: {name} needs {lack}" for name, lack in left_out(plan).items())])
