"""The exhibits of a paper: which an experiment has, the job that makes each, and what the others would need."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping
from types import ModuleType
from typing import Any

from resalign.config import registry
from resalign.config.ablations import AblationConfig, Ablations
from resalign.config.closure import import_closure
from resalign.config.plan import RESULTS, Plan, load_plan
from resalign.config.report import ReportConfig
from resalign.jobs import series
from resalign.jobs.inputs import Input, watched
from resalign.jobs.job import Job, Part
from resalign.jobs.series import SERIES, SeriesExhibit, SeriesWords

FAMILY = "exhibits"
CONTENTS, METHODS = "contents", "methods"  # the exhibit that lists all of them; the one with the configuration's notes
MAIN_TABLE = "table1"
# Tables have LaTeX without and with intervals.
SUFFIXES = {"table": (".csv", ".tex", "-full.tex"), "figure": (".csv", ".png", ".svg"), "macros": (".tex",)}
# Experiments that the published numbers are of, what a further one may change all the same, of which families it may
# have more, and which entries count by what names them: what nothing names changes no number.
PAPERS = ("config/config.yaml", "config/studies/released-data.yaml")
FREE = (
    *("extends", "name", "title", "subtitle", "consent", "sweeps", "main_table_attacks", "resources"),
    *("scoring_batch_size", "keep_images"),
    *("tier", "tiers", "report", "gallery_prompts", "flagging_metric", "detector_audit", "artifact", "theory"),
)
MORE = ("unlearning", "attacks")
NAMED = ("assets", "prepared")


class Listed(Part):
    """A row of the list of exhibits; ``left_out`` is what the exhibit lacks, or ''."""

    exhibit: str
    title: str
    files: str
    left_out: str


class Words(Part):
    """The words of an exhibit beside its frames.

    Attributes:
        another_world: Why published numbers are of another setting than this experiment's, or ''.
        series: Each series of variants, by name.
        metric_modules: Modules of the metrics that only an ablation has, by label.
        plan: All exhibits; empty but for the list of contents.
        notes: The configuration's notes on models, by label; empty but for the table of methods.
        note: Of :func:`main_note`; '' but for the main table.
    """

    another_world: str
    series: dict[str, SeriesWords]
    metric_modules: dict[str, str]
    plan: tuple[Listed, ...] = ()
    notes: dict[str, str] = {}
    note: str = ""


class ExhibitJob(Job):
    """One exhibit, with all of its files.

    Attributes:
        exhibit: Its name.
        files: The frames that it reads, by name.
        report: Settings of the report.
        words: From the plan.
    """

    exhibit: str
    files: dict[str, Input]
    report: ReportConfig
    words: Words

    @classmethod
    def of(cls, plan: Plan, name: str) -> ExhibitJob:
        """The job of one exhibit."""
        files = {frame: Input.file(path) for frame, path in frames_of(plan, name).items()}
        return cls(exhibit=name, files=files, report=plan.experiment.config.report, words=words(plan, name))


@functools.cache
def declared_ablations(plan: Plan) -> Mapping[str, AblationConfig]:
    """The experiment's ablations by name, whose values.csv a rule makes; the file is read once."""
    return Ablations(plan, {}).entries


def declared_theory(plan: Plan) -> tuple[str, ...]:
    """Frames under theory/ that exhibits may read: slices go along what an attack has moved."""
    return ("slices",) if plan.experiment.attacks else ()


def exhibits() -> list[str]:
    """Every exhibit: those of one file each, and those of the table of series."""
    return sorted([*registry.members(FAMILY), *SERIES])


def member(name: str) -> ModuleType | SeriesExhibit:
    """The module of an exhibit, or its row of the table of series."""
    return SERIES.get(name) or registry.member(FAMILY, name)


def of_kind(kind: str) -> list[str]:
    """The exhibits of one kind."""
    return [name for name in exhibits() if member(name).KIND == kind]


def needs(plan: Plan, name: str) -> str:
    """The input that an experiment lacks for an exhibit, or ''."""
    module = member(name)
    if getattr(module, "ATTACKED", False) and not plan.experiment.attacks:
        return "an attack: give the experiment an entry under 'attacks'"
    if getattr(module, "RULED", False) and not _has_rules(plan):
        return "a safety metric whose detectors have thresholds, such as ip"
    ablation = getattr(module, "ABLATION", None)
    if ablation and ablation not in declared_ablations(plan) and getattr(module, "ABLATION_ALONE", True):
        if not any(label.startswith(name) for label in plan.experiment.sweeps):
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


def _ablations(plan: Plan, name: str) -> dict[str, tuple[str, AblationConfig | None]]:
    """The ablation, if there is one, behind an exhibit of a series, by that exhibit."""
    return {other: (ablation, declared_ablations(plan).get(ablation)) for other, ablation in _series(name).items()}


def _series(name: str) -> dict[str, str]:
    """Names of the ablations behind an exhibit, by the exhibit that shows each: itself, or those of its SERIES."""
    modules = {other: member(other) for other in getattr(member(name), "SERIES", (name,))}
    return {other: module.ABLATION for other, module in modules.items() if hasattr(module, "ABLATION")}


def planned(plan: Plan) -> list[str]:
    """Exhibits that the experiment has all inputs of."""
    return [name for name in exhibits() if not needs(plan, name)]


def left_out(plan: Plan) -> dict[str, str]:
    """The other exhibits, and what each one needs."""
    return {name: lack for name in exhibits() if (lack := needs(plan, name))}


def folder(plan: Plan) -> str:
    """Folder of the exhibits' files."""
    return f"{RESULTS}/{plan.experiment.config.name}/paper"


def paper_files(plan: Plan) -> list[str]:
    """Every file of the target ``paper``."""
    return [f"{folder(plan)}/{file}" for name in planned(plan) for file in files_of(name)]


def frames_of(plan: Plan, name: str) -> dict[str, str]:
    """The frames that an exhibit reads, by name."""
    return frames(f"{RESULTS}/{plan.experiment.config.name}", name, declared_ablations(plan))


def frames(result: str, name: str, ablations: Collection[str]) -> dict[str, str]:
    """The frames that an exhibit reads, by name.

    Args:
        result: Folder of the experiment's result.
        name: Of the exhibit.
        ablations: Those that there are.
    """
    module = member(name)
    paths = {frame: f"{result}/measured/{frame}.csv" for frame in module.READS}
    if module.READS:
        paths["names"] = f"{result}/measured/names.json"
    for exhibit, ablation in _series(name).items():
        if ablation in ablations:
            paths["ablation" if exhibit == name else exhibit] = f"{result}/ablations/{ablation}/values.csv"
    return paths | {frame: f"{result}/theory/{frame}.csv" for frame in getattr(module, "THEORY", ())}


def files_of(name: str) -> list[str]:
    """Names of an exhibit's files."""
    return [f"{name}{suffix}" for suffix in SUFFIXES[member(name).KIND]]


def words(plan: Plan, name: str) -> Words:
    """The words of an exhibit; only the list of contents depends on the other exhibits."""
    described: dict[str, SeriesWords] = {}
    for exhibit, (ablation, entry) in _ablations(plan, name).items():
        described |= series.described(plan, exhibit, entry, ablation)
    listed = (
        Listed(exhibit=other, title=member(other).TITLE, files=", ".join(files_of(other)), left_out=needs(plan, other))
        for other in (exhibits() if name == CONTENTS else ())
    )
    return Words(
        another_world=another_world(plan),
        series=described,
        metric_modules=_metric_modules(plan, name),
        plan=tuple(listed),
        notes={k: v.note for k, v in plan.experiment.words.items() if v.note} if name == METHODS else {},
        note=main_note(plan) if name == MAIN_TABLE else "",
    )


def main_note(plan: Plan) -> str:
    """What is said under the main table: the configuration's note on the images, and lists that may be captions."""
    lists = [of.title or name for name, of in plan.experiment.config.prompts.items() if of.may_be_captions]
    tested = (
        f"Prompts of {', '.join(lists)} may be captions of images that models were trained on; the page counts them."
        if lists
        else ""
    )
    return f"{plan.experiment.config.concept.note} {tested}".strip()


@functools.cache
def another_world(plan: Plan) -> str:
    """Why published numbers are not of this experiment's setting, or '' where they are.

    They are where it says so, at the paper's size, and resolves to what one of :data:`PAPERS` does: the same model,
    concept, training, prompts, sampling, scorers and metrics. Models and attacks may be more, and the report may look
    otherwise.
    """
    config = plan.experiment.config
    if config.report.published != "comparable":
        return "the experiment is not the paper's"
    if plan.tier != "paper":
        return f"tier '{plan.tier}', not 'paper'"
    setting = _of_setting(plan)
    differing = {path: _differing(_of_paper(path), setting) for path in PAPERS}
    path = min(differing, key=lambda path: len(differing[path]))
    return f"other {', '.join(differing[path])} than {path}'s" if differing[path] else ""


def _differing(papers: dict[str, Any], setting: dict[str, Any]) -> list[str]:
    """Keys and entries in which a setting is not a paper's."""
    keys = [key for key in papers if setting[key] != papers[key] and key not in (*MORE, *NAMED)]
    entries = [(key, label) for key in MORE for label in papers[key]]
    entries += [(key, label) for key in NAMED for label in papers[key] if label in setting[key]]
    return keys + [f"{key}.{label}" for key, label in entries if setting[key].get(label) != papers[key][label]]


@functools.cache
def _of_paper(path: str) -> dict[str, Any]:
    return _of_setting(load_plan(path, {"tier": "paper"}))


def _of_setting(plan: Plan) -> dict[str, Any]:
    """The resolved settings that numbers are of; the main table's attacks, and the tier in force."""
    experiment = plan.experiment
    values = {key: value for key, value in experiment.resolved().items() if key not in FREE}
    attacks = list(experiment.config.main_table_attacks or experiment.config.attacks)
    return {**values, "main_table_attacks": attacks, "tier": experiment.tier.model_dump(mode="json")}


def _metric_modules(plan: Plan, name: str) -> dict[str, str]:
    """Modules of the metrics that only an exhibit's ablations have, by label."""
    modules: dict[str, str] = {}
    for _, entry in _ablations(plan, name).values():
        modules |= series.metric_modules(plan, entry) if entry is not None else {}
    return modules


def exhibit_code(plan: Plan, name: str) -> str:
    """The code input of one exhibit: with its ablations' metrics, and the published numbers, where it shows some."""
    file = "_series" if name in SERIES else name
    metrics = sorted(f"resalign.metrics.{metric}" for metric in set(_metric_modules(plan, name).values()))
    closure = import_closure("scripts/exhibit.py", f"resalign.{FAMILY}.{file}", *metrics)
    return watched(with_published(map(str, closure)))


def with_published(files: Iterable[str]) -> list[str]:
    """Files of code, and the published numbers, where the module that reads them is one."""
    listed, module = list(files), "src/resalign/exhibits/_published.py"
    return [*listed, module.replace(".py", ".csv")] if module in listed else listed


def message(plan: Plan) -> str:
    """The target's last words: which exhibits are left out, and what they need."""
    lines = [f"paper: {len(planned(plan))} exhibits; listed in paper/contents.csv"]
    return "\n".join([*lines, *(f"left out: {name} needs {lack}" for name, lack in left_out(plan).items())])
