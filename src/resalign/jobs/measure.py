"""The measured frames: the job that makes them from raw scores, and the files that it writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from resalign.config.experiment import BASE
from resalign.config.plan import RESULTS, Plan, Stage
from resalign.config.report import ReportConfig
from resalign.config.shape import NOT_ATTACKED
from resalign.jobs.inputs import Input
from resalign.jobs.job import Job, Part

FRAMES = ("values", "per_run", "thresholds", "samples", "images", "sets", "histories")
NAMES = "names.json"
FILES = (*(f"{frame}.csv" for frame in FRAMES), NAMES)


def folder(plan: Plan) -> str:
    """Folder of the measured frames."""
    return f"{RESULTS}/{plan.experiment.config.name}/measured"


def files(plan: Plan) -> list[str]:
    """The measured files."""
    return [f"{folder(plan)}/{file}" for file in FILES]


class Scored(Part):
    """A model, fine-tuned or not, with the folders of its stages; ``{seed}`` stands for a training seed.

    Attributes:
        model: Its label.
        attack: Label of the attack, or ``none``.
        dataset: Of the attack, or ''.
        seeds: Training seeds.
        folders: Folder by stage.
        before: Of an attack on prompts: folder of the scores that it started from, by training seed.
    """

    model: str
    attack: str
    dataset: str
    seeds: tuple[int, ...]
    folders: dict[str, str]
    before: dict[str, str] = {}

    @property
    def files(self) -> Iterator[str]:
        """Scores of every seed, and the training curves."""
        yield from (f"{folder}/scores.parquet" for folder in self.before.values())
        yield from self.of("score", "scores.parquet")
        yield from (file for stage in ("unlearn", "attack") for file in self.of(stage, "history.csv"))

    def of(self, stage: str, file: str) -> Iterator[str]:
        """One stage's file of every seed; nothing where the stage did not run."""
        if stage in self.folders:
            yield from (f"{self.folders[stage].format(seed=seed)}/{file}" for seed in self.seeds)


class SweepJob(Part):
    """A series of attacks that are shown together; see :class:`resalign.analysis.measurements.Sweep`."""

    title: str
    axis: str
    note: str
    metrics: tuple[str, ...]
    attacks: tuple[tuple[str, str], ...]


class Measurable(Job):
    """Runs whose raw scores are measured, and by which metrics.

    Pairs keep the configuration's order of rows, columns and values, as keys are sorted in a job's text.

    Attributes:
        models: Labels in the tables' order.
        base: The model before unlearning.
        titles: Names of models, data sets and attacks to how they are shown.
        attacks: Label and data set of each attack.
        sweeps: Label and content of each sweep.
        main_attacks: Labels of the main table's attacks; None for all.
        heldout: Table of captions of each attack's held-out images.
        metrics: Label and settings of each metric.
        references: Raw scores of sets of real images, by reference.
        compared: Reference that a metric compares an attack's images with, by metric and attack.
        rows: The runs.
    """

    models: tuple[str, ...]
    base: str
    titles: dict[str, str] = {}
    attacks: tuple[tuple[str, str], ...]
    sweeps: tuple[tuple[str, SweepJob], ...] = ()
    main_attacks: tuple[str, ...] | None = None
    heldout: dict[str, Input]
    metrics: tuple[tuple[str, dict[str, Any]], ...]
    references: dict[str, Input]
    compared: dict[str, dict[str, str]]
    rows: tuple[Scored, ...]

    def inputs(self) -> list[str]:
        """Scores of the runs, their training curves, scores of real images, tables of held-out images."""
        return sorted({*super().inputs(), *(file for row in self.rows for file in row.files)})

    @property
    def minutes(self) -> int:
        """Run time to ask for: FID or KID of 10,000 images' 2,048 features takes a core up to a minute."""
        return 30 + len(self.compared) * sum(len(row.seeds) for row in self.rows)


class MeasureJob(Measurable):
    """An experiment's runs, with what its frames say of them besides.

    Attributes:
        name, tier, training_seeds, sampling_seed: Of the experiment.
        gallery: Prompt list of the samples.
        flags: Metric that flags images.
        report: Settings of intervals, thresholds and samples.
        methods: Unlearning method by model.
    """

    name: str
    tier: str
    training_seeds: tuple[int, ...]
    sampling_seed: int
    gallery: str
    flags: str
    report: ReportConfig
    methods: dict[str, str]

    @classmethod
    def of(cls, plan: Plan) -> MeasureJob:
        """The job of an experiment's rule."""
        config = plan.experiment.config
        return cls(
            **measured(plan),
            name=config.name,
            tier=plan.tier,
            training_seeds=plan.experiment.tier.training_seeds,
            sampling_seed=config.sampling.seed,
            gallery=config.gallery_prompts,
            flags=config.flagging_metric,
            report=config.report,
            methods=methods(plan),
        )


def measured(plan: Plan) -> dict[str, Any]:
    """The fields of :class:`Measurable`."""
    experiment, config = plan.experiment, plan.experiment.config
    return {
        "models": tuple(experiment.models),
        "base": BASE,
        "titles": experiment.titles,
        "attacks": tuple((label, data.dataset) for label, data in experiment.attack_data.items()),
        "sweeps": tuple(
            (
                label,
                SweepJob(
                    title=sweep.title,
                    axis=sweep.axis,
                    note=sweep.note,
                    metrics=tuple(sweep.metrics),
                    attacks=tuple(experiment.sweeps[label].items()),
                ),
            )
            for label, sweep in config.sweeps.items()
        ),
        "main_attacks": tuple(config.main_table_attacks or config.attacks),
        "heldout": {label: Input.captions(plan, data.heldout) for label, data in experiment.attack_data.items()},
        "metrics": tuple((label, metric.resolved()) for label, metric in experiment.metrics.items()),
        "references": {
            reference: Input.file(f"{folder}/scores.parquet") for folder, reference in plan.references.items()
        },
        "compared": plan.compared,
        "rows": rows(plan),
    }


def methods(plan: Plan) -> dict[str, str]:
    """Unlearning method by model."""
    return {BASE: BASE, **{model: member.name for model, member in plan.experiment.unlearning.items()}}


def metric_modules(plan: Plan) -> list[str]:
    """Modules of the experiment's metrics."""
    return sorted({f"resalign.metrics.{metric.name}" for metric in plan.experiment.metrics.values()})


def rows(plan: Plan) -> tuple[Scored, ...]:
    """Every model, fine-tuned or not, with the folders of its stages."""
    scored = []
    for score in plan.score.values():
        folders: dict[str, str] = {}
        stage: Stage | None = score
        while stage:
            tier = f"/{plan.tier}" if stage.stage in ("sample", "score") else ""
            folders.setdefault(stage.stage, stage.folder("{seed}") + tier)  # of attacks in a chain, the last
            stage = stage.parent
        attack = score.attack or NOT_ATTACKED
        scored.append(
            Scored(
                model=score.model,
                attack=attack,
                dataset=plan.experiment.attack_data[attack].dataset if score.attack else "",
                seeds=tuple(plan.seeds(score)),
                folders=folders,
                before=scores_before(plan, score) if plan.attacked_prompts(score.attack) else {},
            )
        )
    return tuple(scored)


def scores_before(plan: Plan, score: Stage) -> dict[str, str]:
    """Folder of the scores of the state that an attack started from, by training seed."""
    after = plan.experiment.attack_data[score.attack or ""].after
    start = next(other for other in plan.score.values() if (other.model, other.attack) == (score.model, after))
    # Untrained models are scored with their first seed only.
    seeds_before = {seed: seed if seed in plan.seeds(start) else plan.seeds(start)[0] for seed in plan.seeds(score)}
    return {str(seed): f"{start.folder(before)}/{plan.tier}" for seed, before in seeds_before.items()}
