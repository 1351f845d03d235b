"""The report: its job, and the files that it writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from resalign.config import registry
from resalign.config.plan import Plan
from resalign.config.report import ReportConfig
from resalign.config.shape import NOT_ATTACKED
from resalign.jobs import check_scorers, measure, overlap
from resalign.jobs.digits import digits_parts
from resalign.jobs.inputs import Input
from resalign.jobs.job import Job

PAGE = "report.html"
TABLE = "tables/table1.csv"
STEPS, PER_RUN, PAIRED = "tables/steps.csv", "tables/per_run.csv", "tables/paired.csv"
SURVIVAL, PARETO = "tables/survival.csv", "tables/pareto.csv"
ALWAYS = (PAGE, TABLE, STEPS, PER_RUN, PAIRED, SURVIVAL, PARETO)
WORDS = "attacks.md"  # where there are sweeps
Timing = tuple[str, str, int, str]  # stage, label, seed, folder of a job


def sweep_files(label: str) -> tuple[str, str, str, str]:
    """A sweep's values, its LaTeX without and with intervals, and the mean and worst over its values."""
    stem = f"tables/sweep-{label}"
    return f"{stem}.csv", f"{stem}.tex", f"{stem}-full.tex", f"{stem}-summary.csv"


def files(sweeps: Iterable[str]) -> tuple[str, ...]:
    """The files of a report: outputs of its rule, so that each can be asked for by its name.

    Figures depend on what was measured: their folder is an output.

    Args:
        sweeps: Labels of the experiment's sweeps.
    """
    swept = [file for label in sweeps for file in sweep_files(label)]
    return (*ALWAYS, *swept, *([WORDS] if swept else []))


class Checks(Job):
    """Records of the checks whose findings are caveats of results.

    Attributes:
        overlap: Overlaps of the attacks' data with other sets; None where nothing is attacked.
        scorer_check: Findings of the detectors on images whose content is known.
    """

    overlap: Input | None = None
    scorer_check: Input

    @staticmethod
    def checked(plan: Plan) -> dict[str, Any]:
        """The fields of an experiment."""
        compared = overlap.folder(plan)
        return {
            "overlap": Input(compared, [f"{compared}/overlap.json"]) if compared else None,
            "scorer_check": Input.file(f"{check_scorers.folder(plan)}/{check_scorers.FOUND}"),
        }


class ReportJob(Checks):
    """The content of the page besides the measured frames.

    Attributes:
        measured: Folder of the measured frames.
        name, title, subtitle, concept, tier: Of the experiment.
        command: Begins a command that makes files of the experiment.
        config: The resolved configuration.
        report: Settings of the report.
        definitions: Attacks and prompt lists: how each is shown, and a sentence that defines it.
        notes: The configuration's sentences under the main table.
        gallery: Prompt list of the samples; None in an archive without images.
        timings: Jobs behind the report.
    """

    measured: Input
    name: str
    title: str
    subtitle: str
    concept: str
    tier: str
    command: str
    config: dict[str, Any]
    report: ReportConfig
    definitions: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    gallery: str | None = None
    timings: tuple[Timing, ...]

    @classmethod
    def of(cls, plan: Plan) -> ReportJob:
        """The job of an experiment's rule."""
        config = plan.experiment.config
        references = [("score", "reference", 0, folder) for folder in plan.references]
        return cls(
            **cls.checked(plan),
            measured=Input(measure.folder(plan), measure.files(plan)),
            name=config.name,
            title=config.title,
            subtitle=config.subtitle,
            concept=config.concept.name,
            tier=plan.tier,
            command=plan.command("", tier=plan.tier),
            config=plan.experiment.resolved(),
            report=config.report,
            definitions=definitions(plan),
            notes=(config.concept.note,) if config.concept.note else (),
            gallery=config.gallery_prompts,
            timings=(*report_timings(plan), *references),
        )

    def inputs(self) -> list[str]:
        """The measured frames, the checks' records, and the times of all jobs."""
        return [*super().inputs(), *(f"{folder}/timing.json" for *_, folder in self.timings)]


def definitions(plan: Plan) -> tuple[tuple[str, str], ...]:
    """Attacks of the main table, then prompt lists: how each is shown, and a sentence that defines it."""
    experiment, config = plan.experiment, plan.experiment.config
    titles, defined = experiment.titles, []
    for label in config.main_table_attacks or config.attacks:
        attack, dataset = experiment.attacks[label], experiment.attack_data[label].dataset
        own = experiment.attack_data[label].about
        sentence = registry.sentence("attacks", attack.name)
        title = titles.get(label, titles.get(dataset, label))
        defined.append((title, " ".join(filter(None, (sentence, own))) or label))
    for label, prompts in config.prompts.items():
        count = experiment.tier.prompts[label]
        size = f"{count.prompts or 'all'} prompts; {count.images} image{'s' if count.images > 1 else ''} per prompt"
        own = prompts.about or f"Prompts of {prompts.source if isinstance(prompts.source, str) else label}."
        defined.append((titles.get(label, label), f"{own} ({size} and training seed)"))
    return tuple(defined)


def report_timings(plan: Plan) -> list[Timing]:
    """(stage, label, seed, folder) of every job behind the report, each once."""
    by_folder: dict[str, tuple[str, str, int]] = {}
    for row in measure.rows(plan):
        for stage, folder in row.folders.items():
            # An unlearning run stands behind several rows; its label is the model's.
            plain = stage == "unlearn" or row.attack == NOT_ATTACKED
            label = row.model if plain else f"{row.model}/{row.attack}"
            for seed in row.seeds:
                by_folder[folder.format(seed=seed)] = (stage, label, seed)
    for asset in plan.assets.values():
        if asset.origin != "path":
            by_folder[asset.folder] = ("assets", asset.name, 0)
    for folder, part in digits_parts(plan).items():
        by_folder[folder] = ("assets", part, 0)
    by_folder[check_scorers.folder(plan)] = ("inputs", "scorers", 0)
    if compared := overlap.folder(plan):
        by_folder[compared] = ("inputs", "overlap", 0)
    return [(*key, folder) for folder, key in by_folder.items()]
