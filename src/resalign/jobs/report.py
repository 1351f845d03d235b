"""The report: its job, the files that it reads, and the files that it writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from resalign.config.experiment import BASE
from resalign.config.plan import NOT_ATTACKED, Plan, Stage
from resalign.jobs import check_scorers, overlap
from resalign.jobs.digits import digits_parts
from resalign.jobs.job import as_json

PAGE = "report.html"
EFFICIENCY = "efficiency.csv"  # written by resalign.accounting.efficiency, when a run has ended
TABLE, LATEX = "tables/table1.csv", "tables/table1.tex"
STEPS, PER_RUN, PAIRED = "tables/steps.csv", "tables/per_run.csv", "tables/paired.csv"
SURVIVAL, PARETO = "tables/survival.csv", "tables/pareto.csv"
ALWAYS = (PAGE, TABLE, LATEX, STEPS, PER_RUN, PAIRED, SURVIVAL, PARETO)
WORDS = "attacks.md"  # where there are sweeps


def sweep_files(label: str) -> tuple[str, str, str]:
    """A sweep's values, their mean and worst, and its LaTeX."""
    stem = f"tables/sweep-{label}"
    return f"{stem}.csv", f"{stem}-summary.csv", f"{stem}.tex"


def files(sweeps: Iterable[str]) -> tuple[str, ...]:
    """The files of a report: outputs of its rule, so that each can be asked for by its name.

    Figures depend on what was measured: their folder is an output.

    Args:
        sweeps: Labels of the experiment's sweeps.
    """
    swept = [file for label in sweeps for file in sweep_files(label)]
    return (*ALWAYS, *swept, *([WORDS] if swept else []))


def report_rows(plan: Plan) -> list[dict[str, Any]]:
    """Every model, fine-tuned or not, with the folders of its stages; {seed} stands for a training seed."""
    rows = []
    for score in plan.score.values():
        folders: dict[str, str] = {}
        stage = score
        while stage:
            tier = f"/{plan.tier}" if stage.stage in ("sample", "score") else ""
            folders.setdefault(stage.stage, stage.folder("{seed}") + tier)  # of attacks in a chain, the last
            if stage.parent is None:
                break
            stage = stage.parent
        rows.append(
            {
                "model": score.model,
                "attack": score.attack or NOT_ATTACKED,
                "dataset": plan.experiment.attack_data[score.attack].dataset if score.attack else "",
                "seeds": plan.seeds(score),
                "folders": folders,
                **({"before": scores_before(plan, score)} if plan.attacked_prompts(score.attack) else {}),
            }
        )
    return rows


def scores_before(plan: Plan, score: Stage) -> dict[str, str]:
    """Folder of the scores of the state that an attack started from, by training seed."""
    after = plan.experiment.attack_data[score.attack or ""].after
    found = next(other for other in plan.score.values() if (other.model, other.attack) == (score.model, after))
    # What nothing has trained is scored with its first seed alone.
    own = {seed: seed if seed in plan.seeds(found) else plan.seeds(found)[0] for seed in plan.seeds(score)}
    return {str(seed): f"{found.folder(before)}/{plan.tier}" for seed, before in own.items()}


def report_timings(plan: Plan) -> list[tuple[str, str, int, str]]:
    """(stage, label, seed, folder) of every job behind the report, each once."""
    found = {}
    for row in report_rows(plan):
        for stage, folder in row["folders"].items():
            # An unlearning run stands behind several rows; its label is the model's alone.
            plain = stage == "unlearn" or row["attack"] == NOT_ATTACKED
            label = row["model"] if plain else f"{row['model']}/{row['attack']}"
            for seed in row["seeds"]:
                found[folder.format(seed=seed)] = (stage, label, seed)
    for asset in plan.assets.values():
        if asset.origin != "path":
            found[asset.folder] = ("assets", asset.name, 0)
    for folder, part in digits_parts(plan).items():
        found[folder] = ("assets", part, 0)
    found[check_scorers.folder(plan)] = ("inputs", "scorers", 0)
    compared = overlap.folder(plan)
    if compared:
        found[compared] = ("inputs", "overlap", 0)
    return [(*key, folder) for folder, key in found.items()]


def report_files(plan: Plan) -> list[str]:
    """Every file that the report reads: scores, the reference's, what attacks' data overlap with, all jobs' times."""
    scores = [
        f"{row['folders']['score'].format(seed=seed)}/scores.parquet"
        for row in report_rows(plan)
        for seed in row["seeds"]
    ]
    references = [f"{folder}/scores.parquet" for folder in plan.references]
    compared = [f"{overlap.folder(plan)}/overlap.json"] if plan.experiment.attacks else []
    detectors = f"{check_scorers.folder(plan)}/{check_scorers.FOUND}"
    return [
        *scores,
        *references,
        *compared,
        detectors,
        *(f"{folder}/timing.json" for *_, folder in report_timings(plan)),
    ]


def report_job(plan: Plan) -> str:
    """What scripts/report.py needs."""
    experiment, config = plan.experiment, plan.experiment.config
    attacked = experiment.attack_data
    return as_json(
        {
            "name": config.name,
            "command": plan.command("", tier=plan.tier),
            "title": config.title,
            "subtitle": config.subtitle,
            "concept": config.concept.name,
            "tier": plan.tier,
            "training_seeds": experiment.tier.training_seeds,
            "sampling_seed": config.sampling.seed,
            "config": experiment.resolved(),
            "models": experiment.models,
            "base": BASE,
            # Pairs: the order of rows, columns and values is the configuration's, and keys are sorted here.
            "attacks": [(label, data.dataset) for label, data in attacked.items()],
            "sweeps": [
                (
                    label,
                    {"title": sweep.title, "axis": sweep.axis, "note": sweep.note, "metrics": sweep.metrics}
                    | {"attacks": list(experiment.sweeps[label].items())},
                )
                for label, sweep in config.sweeps.items()
            ],
            "main_attacks": config.main or list(config.attacks),
            "heldout": {label: plan.captions(data.heldout) for label, data in attacked.items()},
            "metrics": [(label, metric.resolved()) for label, metric in experiment.metrics.items()],
            "gallery": config.gallery,
            "flags": config.flags,
            "report": config.report.model_dump(mode="json"),
            "references": {reference: f"{folder}/scores.parquet" for folder, reference in plan.references.items()},
            "compared": plan.compared,
            "overlap": overlap.folder(plan),
            "scorer_check": f"{check_scorers.folder(plan)}/{check_scorers.FOUND}",
            "rows": report_rows(plan),
            "timings": report_timings(plan),
        }
    )
