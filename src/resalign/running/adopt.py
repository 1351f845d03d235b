"""Takes over results that another folder has made, if this one would make the same.

Snakemake compares file times and its own notes. Both are lost when results are copied, so that it would make all of
them again. A run's record names its job, seed and code: where they equal the plan's here, the result is the plan's.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resalign.config.closure import CODE, import_closure, source_hash
from resalign.config.plan import RESULTS, Plan
from resalign.running.notes import note_of
from resalign.running.stage import argument_parser


@dataclass(frozen=True)
class PlannedJob:
    """A job that Snakemake would run.

    Attributes:
        rule: Its rule.
        inputs, outputs: Its files.
        command: Its shell command.
    """

    rule: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    command: str


def planned_jobs(dry_run: str) -> list[PlannedJob]:
    """The jobs that ``snakemake --dry-run --printshellcmds`` prints, each after those whose results it reads."""
    jobs = []
    for block in re.split(r"^\[.*\]\n", dry_run, flags=re.MULTILINE)[1:]:
        rule = re.match(r"(?:local)?rule (\S+):", block)
        command = re.search(r"^Shell command: (python .* 2>&1 \| tee \S+)", block, flags=re.MULTILINE)
        files = {kind: re.search(rf"^    {kind}: (.*)$", block, flags=re.MULTILINE) for kind in ("input", "output")}
        listed = {kind: tuple(match[1].split(", ")) if match else () for kind, match in files.items()}
        if rule and listed["output"]:
            jobs.append(PlannedJob(rule[1], listed["input"], listed["output"], command[1] if command else ""))
    return jobs


def sorted_out(jobs: Iterable[PlannedJob]) -> tuple[list[str], dict[str, list[str]]]:
    """Outputs of the jobs whose results are what they would make; first outputs of the others, by the reason."""
    adopted: list[str] = []
    differing: dict[str, list[str]] = {}
    made_again: set[str] = set()
    for job in jobs:
        reason = "reads what is made again" if made_again & set(job.inputs) else difference(job)
        if reason is None:
            adopted += job.outputs
        else:
            made_again |= set(job.outputs)
            differing.setdefault(reason, []).append(job.outputs[0])
    return adopted, differing


def difference(job: PlannedJob) -> str | None:
    """Why a job's results are not those that it would make; None if they are."""
    words = shlex.split(job.command)
    if "--job" not in words:
        return "has no record"
    if not all(Path(output).exists() for output in job.outputs):
        return "is not here"
    script, arguments = _told(words)
    folder = Path(arguments.output)
    if not (folder / "run.json").is_file() or not (folder / "timing.json").is_file():
        return "has no record"
    try:
        record, timing = (dict(json.loads((folder / name).read_bytes())) for name in ("run.json", "timing.json"))
        recorded, started_at = dict(record["job"]), float(timing["started_at"])
    except (ValueError, TypeError, KeyError, RecursionError):  # of a copy that was cut short
        return "has no whole record"
    code = import_closure(script, *arguments.modules)
    planned = {"job": arguments.job, "seed": arguments.seed, "source_sha256": source_hash(code)}
    if arguments.job.get("device") == "auto":
        planned["job"] = {**arguments.job, "device": recorded.get("device")}
    if other := [key for key, value in planned.items() if record.get(key) != value]:
        return f"is of another {' and '.join(other)}"
    others = [path for path in job.inputs if not path.startswith((f"{RESULTS}/", f"{CODE}/"))]
    newer = sorted(path for path in others if Path(path).stat().st_mtime > started_at)
    return f"reads {newer[0]}, which is newer" if newer else None


def _told(words: list[str]) -> tuple[str, Any]:
    """The script and the arguments of a rule's command: ``python SCRIPT --job … [<<< JOB] 2>&1 | tee LOG``."""
    argv = words[1 : words.index("2>&1")]
    if "<<<" in argv:
        argv, [_, job] = argv[: argv.index("<<<")], argv[argv.index("<<<") :]
        argv[argv.index("-")] = job
    return argv[0], argument_parser("").parse_args(argv[1:])


def adopt_command(files: Iterable[str | Path], config: Mapping[str, Any]) -> str:
    """The command by which a person takes results over.

    Args:
        files: The experiment's, the first of them first.
        config: Values from the command line, as Snakemake has read them.
    """
    values = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in config.items()]
    variables = {"CONFIG": [os.path.relpath(file) for file in files], "ARGS": ["--config", *values] if values else []}
    # make hands the words on to a shell as they stand, but for its own $.
    quoted = {name: shlex.quote(shlex.join(words).replace("$", "$$")) for name, words in variables.items() if words}
    return " ".join(["make adopt", *(f"{name}={words}" for name, words in quoted.items())])


def foreign_runs(plan: Plan) -> int:
    """Counts the finished runs of a plan for which Snakemake has no note in this folder."""
    stages = (plan.unlearn, plan.attack)
    folders = [run.folder(seed) for stage in stages for run in stage.values() for seed in plan.seeds(run)]
    return sum(Path(folder, "run.json").is_file() and not note_of(f"{folder}/run.json").is_file() for folder in folders)
