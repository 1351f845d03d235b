"""Every job behind each table, known before any of them runs, with how much work it is.

The rules of the workflow say the same to Snakemake; a test holds the counts of both against each other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resalign.accounting.job_records import RECORD, TIMING
from resalign.config import own_inputs
from resalign.config.assets import FETCHED
from resalign.config.plan import RESULTS, Plan, Stage
from resalign.jobs import cards, check_scorers, overlap, report, study
from resalign.jobs.attack import AttackJob
from resalign.jobs.digits import DigitsJob, autoencoder_of, digits_parts
from resalign.jobs.fetch import FetchJob
from resalign.jobs.job import Job
from resalign.jobs.prepare import PrepareJob
from resalign.jobs.sample import SampleJob
from resalign.jobs.score import ScoreJob
from resalign.jobs.second_order import SecondOrderJob
from resalign.jobs.unlearn import UnlearnJob

# In the order in which a person reads them.
STAGES = ("inputs", "assets", "unlearn", "attack", "sample", "score", "report", "study", "second_order")


@dataclass(frozen=True)
class PlannedJob:
    """One job of the workflow.

    Attributes:
        stage: One of :data:`STAGES`.
        label, seed: What it makes.
        folder: Where it makes it.
        job: What its rule tells its script.
        model: Folder of the model that it runs, or whose images it reads; empty where there is none.
        units: How many steps or images it is made of; None where only its inputs tell.
        threads: CPU threads that it holds.
        made: The file in its folder that says that it has finished.
    """

    stage: str
    label: str
    seed: int
    folder: str
    job: dict[str, Any] = field(hash=False)
    model: str = ""
    units: int | None = 1
    threads: int = 1
    made: str = TIMING

    @property
    def entry(self) -> tuple[str, str, int, str]:
        """What :func:`resalign.accounting.job_records.read_job_records` reads it by."""
        return self.stage, self.label, self.seed, self.folder

    @property
    def wants_gpu(self) -> bool:
        """Whether it asks for a GPU."""
        return self.job.get("device", "cpu") != "cpu"

    @property
    def is_done(self) -> bool:
        """Whether it has finished once; whether it is still up to date is Snakemake's to say: ``snakemake -n``."""
        return (Path(self.folder) / self.made).is_file()

    @property
    def is_recorded(self) -> bool:
        """Whether it has finished, and is one of those that leave a record of their time."""
        return self.made == TIMING and self.is_done


def tables(plan: Plan) -> dict[str, list[PlannedJob]]:
    """The jobs behind each table that a configuration can give, by the table's name; tables share jobs."""
    inputs, assets = _inputs(plan), _assets(plan)
    stages = ((plan.unlearn, _unlearn), (plan.attack, _attack), (plan.sample, _sample), (plan.score, _score))
    runs = [make(plan, run, seed) for found, make in stages for run in found.values() for seed in plan.seeds(run)]
    common = [*inputs, *assets, *_overlap(plan), _scorers(plan), *runs]
    found = {"table1": [*common, *_references(plan), _report(plan)]}
    if plan.experiment.config.audit:
        found["audit"] = [*common, *_references(plan), _cards(plan)]
    if not study.missing_models(plan):
        found["study"] = [*common, *_study(plan)]
    if digits_parts(plan):  # in float64 through a whole fine-tuning: a small model's
        read = set(SecondOrderJob.of(plan).inputs())
        read |= {f"{autoencoder_of(plan.folder(plan.experiment.config.model))}/{RECORD}"}
        audited = [asset for asset in assets if f"{asset.folder}/{RECORD}" in read]
        found["second_order"] = [*inputs, *audited, _second_order(plan)]
    return found


def unite(groups: dict[str, list[PlannedJob]]) -> list[PlannedJob]:
    """The jobs of several tables, each once."""
    return list({(job.folder, job.made): job for group in groups.values() for job in group}.values())


def _inputs(plan: Plan) -> list[PlannedJob]:
    return [
        PlannedJob("inputs", "own files", 0, str(Path(name).parent), found, made=Path(name).name)
        for name, found in own_inputs.records(plan).items()
    ]


def _assets(plan: Plan) -> list[PlannedJob]:
    parts = digits_parts(plan)
    found = [PlannedJob("assets", part, 0, at, DigitsJob.of(plan, at).plain()) for at, part in parts.items()]
    for asset in plan.assets.values():
        if asset.origin in FETCHED:
            found.append(PlannedJob("assets", asset.name, 0, asset.folder, FetchJob.of(plan, asset.name).plain()))
        elif asset.origin == "prepared":
            job = PrepareJob.of(plan, asset.name).plain()
            found.append(PlannedJob("assets", asset.name, 0, asset.folder, job))
    return found


def _overlap(plan: Plan) -> list[PlannedJob]:
    folder = overlap.folder(plan)
    return [PlannedJob("inputs", "overlap", 0, folder, overlap.OverlapJob.of(plan).plain())] if folder else []


def _scorers(plan: Plan) -> PlannedJob:
    return PlannedJob(
        "inputs", "scorers", 0, check_scorers.folder(plan), check_scorers.CheckScorersJob.of(plan).plain()
    )


def _run(plan: Plan, run: Stage, seed: int, folder: str, job: Job, units: int | None) -> PlannedJob:
    threads = plan.experiment.resources(run.stage).threads
    model = plan.folder(plan.pipeline(run.model))
    return PlannedJob(run.stage, run.label, seed, folder, job.plain(), model, units, threads)


def _unlearn(plan: Plan, run: Stage, seed: int) -> PlannedJob:
    steps = getattr(plan.experiment.unlearning[run.model].config, "steps", 1)
    return _run(plan, run, seed, run.folder(seed), UnlearnJob.of(plan, run), steps)


def _attack(plan: Plan, run: Stage, seed: int) -> PlannedJob:
    config = plan.experiment.attacks[run.attack or ""].config
    # A search makes the steps of all its candidates, an attack on prompts those of each prompt.
    steps = getattr(config, "optimizer_steps", getattr(config, "steps", 1))
    attacked = plan.attacked_prompts(run.attack)
    prompts = plan.most_prompts(attacked) if attacked else 1
    units = None if prompts is None else steps * prompts
    return _run(plan, run, seed, run.folder(seed), AttackJob.of(plan, run, str(seed)), units)


def _sample(plan: Plan, run: Stage, seed: int) -> PlannedJob:
    job = SampleJob.of(plan, run, str(seed), plan.tier)
    return _run(plan, run, seed, f"{run.folder(seed)}/{plan.tier}", job, _images(plan, run))


def _score(plan: Plan, run: Stage, seed: int) -> PlannedJob:
    job = ScoreJob.of(plan, run, str(seed), plan.tier)
    return _run(plan, run, seed, f"{run.folder(seed)}/{plan.tier}", job, _images(plan, run))


def _images(plan: Plan, run: Stage) -> int | None:
    """Images of one run: of an attack's last state, and where a prompt list goes along the way of all its states."""
    config = plan.experiment.attacks[run.attack].config if run.attack else None
    states = 1 + len(getattr(config, "checkpoints", ()))
    images = 0
    for name, prompts in plan.experiment.config.prompts.items():
        if prompts.source_after(run.attack) is None:
            continue
        count = plan.experiment.tier.prompts[name]
        if count.prompts is None:
            return None
        images += count.prompts * count.images * (states if prompts.along_the_way else 1)
    return images


def _references(plan: Plan) -> list[PlannedJob]:
    threads = plan.experiment.resources("score").threads
    found = []
    for folder, reference in plan.references.items():
        job = ScoreJob.of_reference(plan, reference).plain()
        found.append(PlannedJob("score", "reference", 0, folder, job, threads=threads))
    return found


def _result(plan: Plan) -> str:
    return f"{RESULTS}/{plan.experiment.config.name}"


def _report(plan: Plan) -> PlannedJob:
    return PlannedJob("report", "page", 0, _result(plan), json.loads(report.report_job(plan)))


def _cards(plan: Plan) -> PlannedJob:
    return PlannedJob("report", "cards", 0, cards.folder(plan), json.loads(cards.card_job(plan)))


def _study(plan: Plan) -> list[PlannedJob]:
    folder, job = f"{_result(plan)}/study", study.StudyJob.of(plan).plain()
    return [
        PlannedJob("study", "counts", 0, folder, job),
        PlannedJob("study", "table", 0, folder, {}, made="table.csv"),
    ]


def _second_order(plan: Plan) -> PlannedJob:
    job = SecondOrderJob.of(plan).plain()
    threads = plan.experiment.resources("unlearn").threads
    return PlannedJob(
        "second_order", "audit", 0, f"{_result(plan)}/second-order", job, str(job["model"]), threads=threads
    )
