"""What the rules of the measured theory tell their scripts, and the files that they read and write."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from resalign.config.plan import RESULTS, Plan, Stage
from resalign.jobs import report as report_jobs
from resalign.jobs.inputs import completion_files
from resalign.jobs.job import as_json
from resalign.jobs.training import parent_weights

STATE_TABLES = ("sharpness", "displacement", "slices")
REGAINED = "regained"
TABLES = (*STATE_TABLES, REGAINED)
# What a reader opens besides tables, by the tables that it is made from.
READS = {"theory": ("sharpness", "displacement", REGAINED), "sharpness": (REGAINED,)}
READS |= {"displacement": ("displacement",), "slices": ("slices",)}
SHOWN = ("theory.md", *(f"{figure}.{suffix}" for figure in STATE_TABLES for suffix in ("png", "svg")))
LINEAR_MODEL = ("linear_model.csv", "linear_model.md", "linear_model.png", "linear_model.svg")


def folder(plan: Plan) -> str:
    """Where the experiment's tables lie."""
    return f"{RESULTS}/{plan.experiment.config.name}/theory"


def files(plan: Plan) -> list[str]:
    """Everything that the target ``theory`` makes; each file is a job's of its own."""
    tables = [f"{name}.csv" for name in TABLES]
    return [f"{folder(plan)}/{name}" for name in (*tables, *SHOWN, *LINEAR_MODEL)]


def measured_files(plan: Plan) -> list[str]:
    """What files of the target are made from, besides the models' own tables, and the records of how."""
    regained, linear = f"{folder(plan)}/measured", f"{folder(plan)}/measured/linear-model"
    return [f"{regained}/{REGAINED}.csv", f"{regained}/run.json", f"{linear}/linear_model.csv", f"{linear}/run.json"]


def file_jobs(report: Mapping[str, Any], states: Sequence[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(file, script, job) of everything that the target makes.

    Args:
        report: The report's job.
        states: Folder of every measured model and training seed, in the tables' order.
    """
    where = f"{RESULTS}/{report['name']}/theory"
    for table in TABLES:
        yield f"{where}/{table}.csv", "theory_table", {"table": table, "parts": parts_of(where, states, table)}
    for file in SHOWN:
        yield f"{where}/{file}", "theory_shown", _shown(report, file, where, states)
    for file in LINEAR_MODEL:
        yield f"{where}/{file}", "linear_model_shown", _linear_model_shown(report, file, where)


def states(plan: Plan) -> dict[str, Stage]:
    """One run for each model before fine-tuning, by folder name; its hash is of the attacks on it too.

    The linear model is left out of it: another grid is no reason to measure a network again.
    """
    found = {}
    for score in _unattacked(plan):
        resolved = {
            "theory": _state_config(plan),
            "forget": plan.folder(plan.experiment.config.concept.forget),
            "pixels": plan.experiment.config.pixels,
            # Of an unlearned model what made it, of another its pipeline: what its sampling is named by.
            "state": score.resolved["parent"]["parent"],
            "attacks": {str(stage.attack): stage.resolved for stage in _attacks(plan, score.model)},
        }
        unlearned = score.parent.parent if score.parent else None
        state = Stage("theory", score.model, score.model, None, resolved, (), unlearned)
        found[state.run] = state
    return found


def seeds(plan: Plan, state: Stage) -> tuple[int, ...]:
    """Training seeds of a model; one that nothing has trained here has the first only."""
    return plan.seeds(next(score for score in _unattacked(plan) if score.model == state.model))


def attacks(plan: Plan, state: Stage, seed: int) -> list[tuple[str, int, str]]:
    """(label, training seed, file of kept states) of every attack on a model of one training seed.

    Of a model that nothing has trained, attacks of every seed start.
    """
    untrained = len(seeds(plan, state)) < len(plan.experiment.tier.training_seeds)
    return [
        (str(stage.attack), of, f"{stage.folder(of)}/checkpoints.json")
        for stage in _attacks(plan, state.model)
        for of in (plan.seeds(stage) if untrained else (seed,))
    ]


def state_job(plan: Plan, run: str, seed: int) -> str:
    """What scripts/theory.py needs."""
    state, config = states(plan)[run], plan.experiment.config
    return as_json(
        {
            "label": state.label,
            "theory": _state_config(plan),
            "pixels": config.pixels,
            "device": plan.experiment.resources("unlearn").device,
            "model": plan.folder(plan.pipeline(state.model)),
            "weights": parent_weights(state, str(seed)),
            "forget": plan.folder(config.concept.forget),
            "attacks": attacks(plan, state, seed),
        }
    )


def state_inputs(plan: Plan, run: str, seed: int) -> dict[str, list[str]]:
    """The files that a measurement reads, by kind."""
    state = states(plan)[run]
    return {
        "weights": list(filter(None, [parent_weights(state, str(seed))])),
        "attacks": [manifest for _, _, manifest in attacks(plan, state, seed)],
        "assets": completion_files(plan, [plan.pipeline(state.model), plan.experiment.config.concept.forget]),
    }


def measured_states(plan: Plan) -> list[str]:
    """Folder of every measured model and training seed, in the tables' order."""
    return [state.folder(seed) for state in states(plan).values() for seed in seeds(plan, state)]


def parts(plan: Plan, table: str) -> list[str]:
    """The measured files that a table is joined from."""
    return parts_of(folder(plan), [] if table == REGAINED else measured_states(plan), table)


def parts_of(where: str, states: Sequence[str], table: str) -> list[str]:
    """The same, of the experiment's folder and those of its measured models."""
    if table == REGAINED:
        return [f"{where}/measured/{REGAINED}.csv"]
    return [f"{state}/{table}.csv" for state in states]


def table_job(plan: Plan, table: str) -> str:
    """What scripts/theory_table.py needs."""
    return as_json({"table": table, "parts": parts(plan, table)})


def regained_job(plan: Plan) -> str:
    """What scripts/theory_regained.py needs: what the report needs, and the models' sharpness."""
    return as_json({**json.loads(report_jobs.report_job(plan)), "sharpness": parts(plan, "sharpness")})


def shown_parts(plan: Plan, file: str) -> dict[str, list[str]]:
    """What a text or drawing is made from, by table: the measured files, so that no joined table is made again."""
    return {table: parts(plan, table) for table in READS[PurePath(file).stem]}


def shown_job(plan: Plan, file: str) -> str:
    """What scripts/theory_shown.py needs: the report's names and settings, and where the measured files lie."""
    return as_json(_shown(json.loads(report_jobs.report_job(plan)), file, folder(plan), measured_states(plan)))


def _shown(report: Mapping[str, Any], file: str, where: str, states: Sequence[str]) -> dict[str, Any]:
    kept = ("models", "base", "attacks", "sweeps", "main_attacks", "metrics", "report")
    tables = {table: parts_of(where, states, table) for table in READS[PurePath(file).stem]}
    return {**{key: report[key] for key in kept}, "file": file, "tables": tables}


def linear_model_job(plan: Plan) -> str:
    """What scripts/linear_model.py needs."""
    return as_json({"linear_model": plan.experiment.config.theory.linear_model.model_dump(mode="json")})


def linear_model_shown_job(plan: Plan, file: str) -> str:
    """What scripts/linear_model_shown.py needs."""
    return as_json(_linear_model_shown(json.loads(report_jobs.report_job(plan)), file, folder(plan)))


def _linear_model_shown(report: Mapping[str, Any], file: str, where: str) -> dict[str, Any]:
    return {
        "file": file,
        "table": f"{where}/measured/linear-model/linear_model.csv",
        "samples": report["config"]["theory"]["linear_model"]["samples"],
        "report": report["report"],
    }


def _state_config(plan: Plan) -> dict[str, Any]:
    return plan.experiment.config.theory.model_dump(mode="json", exclude={"linear_model"})


def _unattacked(plan: Plan) -> list[Stage]:
    return [stage for stage in plan.score.values() if stage.attack is None]


def _attacks(plan: Plan, model: str) -> list[Stage]:
    """The attacks on a model, those in a chain after another included."""
    return [stage for stage in plan.attack.values() if stage.model == model]
