"""Compares the records of an archive with its configuration; neither is trusted.

A record may name only the inputs of its stage, in the places where the plan puts them: the raw scores of a row's own
model and attack, never another file of the archive, and no file of this machine.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from resalign.config.captions import CAPTION_TABLES
from resalign.config.experiment import LABEL, Experiment
from resalign.config.plan import RESULTS, Plan
from resalign.config.references import is_inside
from resalign.config.shape import NOT_ATTACKED, TIERS
from resalign.config.strict import ConfigError
from resalign.disclosure import values_without_places
from resalign.jobs.measure import MeasureJob
from resalign.jobs.report import ReportJob

# Jobs stay plain JSON here: an archive may be of an older version, whose own code is handed its job without defaults
# that were added since.
Job = dict[str, Any]
HELD_OUT = "inputs/held-out"  # the held-out sets' tables, of which the report counts the rows
MOST_RECORD_BYTES = 64 << 20  # the report's record has a kilobyte or so for each run
_STAGES = ("unlearn", "attack", "sample", "score")
_HASH = "[0-9a-f]{10}"
# Families of a configuration, and the key by which an entry names its member.
_FAMILIES = {"prepared": "set", "unlearning": "method", "attacks": "attack", "scorers": "scorer", "metrics": "metric"}
_SHOWN_CHARACTERS = 100


class RecordError(ValueError):
    """A record contradicts the configuration, or is not a record."""


def content(path: Path, where: str, most_bytes: int = MOST_RECORD_BYTES) -> bytes:
    """Bytes of an untrusted file, if it is small enough: parsed values take many times the memory of their text.

    Args:
        path: Of the file.
        where: What to call it in the error.
        most_bytes: That are read.

    Raises:
        RecordError: If it is.
    """
    if (size := path.stat().st_size) > most_bytes:
        raise RecordError(f"{where}: has {size:,} bytes; at most {most_bytes:,} are read; do not use the archive")
    return path.read_bytes()


def told(root: Path, folder: str) -> Job:
    """The recorded job of the stage that wrote a folder.

    Raises:
        RecordError: If there is none.
    """
    where = f"{folder}/run.json"
    try:
        job = json.loads(content(root / where, where).decode("utf-8"))["job"]
    except RecordError:
        raise
    except FileNotFoundError:
        raise RecordError(f"{where}: missing; it says what the files beside it were made of") from None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise RecordError(f"{where}: is no record of a job ({type(error).__name__}: {error})") from None
    if not isinstance(job, dict):
        raise RecordError(f"{where}: its job is no mapping")
    return job


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """A block that reads untrusted values, whose structure may be wrong.

    Raises:
        RecordError: If a value is missing or of another kind.
    """
    try:
        yield
    except (RecordError, ConfigError):
        raise
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, RecursionError) as error:
        raise RecordError(
            f"{where}: is nothing that this version can read ({type(error).__name__}: {error}); verify it with a "
            "checkout of the revision that its README names"
        ) from None


def check_report(report: Job, measured: Job, planned: Plan, config: Mapping[str, Any]) -> None:
    """Compares the jobs of the report and of the measured frames with those that the configuration plans.

    All keys must be equal except the user's own paths (the command, and the folders of the held-out tables). Hashes in
    names of runs and data sets are ignored, as they depend on these paths; so is the order of lists, as the archive's
    configuration has its keys sorted.

    Args:
        report: The report's job, as its record has it.
        measured: The job of the measured frames, as its record has it.
        planned: From :func:`plan_of`.
        config: As the archive has it.

    Raises:
        RecordError: Naming the first key that differs, or leads elsewhere.
    """
    result = f"{RESULTS}/{config['name']}"
    jobs = {
        f"{result}/run.json": (report, ReportJob.of(planned).plain()),
        f"{result}/measured/run.json": (measured, MeasureJob.of(planned).plain()),
    }
    for where, (job, expected) in jobs.items():
        with reading(where):
            # An older version's settings lack the defaults that were added since.
            metrics = [[label, config["metrics"][label]] for label, _ in expected.get("metrics", ())]
            older = {"config": config, "report": config["report"], "metrics": metrics}
            expected |= {key: older[key] for key in older.keys() & expected.keys()}
            recorded, planned_job = _comparable(job), _comparable(expected)
            for key in (*planned_job, *recorded.keys() - planned_job.keys()):
                _same(where, key, recorded.get(key), planned_job.get(key))
            if "heldout" in job:
                _same(where, "heldout", sorted(job["heldout"]), sorted(planned.experiment.attacks))
                _check_heldout(job, where)


def plan_of(config: Mapping[str, Any]) -> Plan:
    """The plan of a resolved configuration, in which members have a name and sweeps have added their attacks.

    Raises:
        RecordError: If an experiment would resolve it otherwise.
        ConfigError: If it is none.
    """
    where = f"config/{config['name']}.yaml"
    resolved = {key: value for key, value in config.items() if key != "extends"}  # no other file is read
    with reading(where):
        written = dict(resolved)
        made = {f"{sweep['attack']}-{value}" for sweep in resolved["sweeps"].values() for value in sweep["values"]}
        for family, key in _FAMILIES.items():
            written[family] = {
                label: {key if name == "name" else name: value for name, value in entry.items()}
                for label, entry in resolved[family].items()
                if not (family == "attacks" and label in made)
            }
        plan = Plan(Experiment(written, where=where))
        # A path in the packer's home folder begins with '~', which is another folder here.
        resolved, again = map(values_without_places, (resolved, plan.experiment.resolved()))
        _same(where, "configuration", resolved, _cut_to(again, resolved))
    return plan


def _cut_to(values: Any, known: Any) -> Any:
    """Values without the keys that an older version did not know; those have their defaults."""
    if not (isinstance(values, dict) and isinstance(known, dict)):
        return values
    return {key: _cut_to(value, known[key]) for key, value in values.items() if key in known}


def _comparable(job: Job) -> Job:
    """A job without the user's own paths, hashes in names and the order of lists."""
    values: Job = json.loads(re.sub(rf'(?<=[-/]){_HASH}(?=[/"])', "", json.dumps(job)))
    for label in ("command", "heldout"):
        values.pop(label, None)
    for _, sweep in values.get("sweeps", ()):
        sweep["attacks"].sort()
    for key in ("models", "attacks", "metrics", "sweeps", "main_attacks", "timings", "definitions"):
        values.get(key, []).sort(key=json.dumps)
    values.get("rows", []).sort(key=lambda row: (row["model"], row["attack"]))
    return values


def check_ablation(job: Job, measured: Job, name: str) -> None:
    """Compares an ablation's job with that of the frames: settings that no variant overrides must be the same.

    Args:
        job: As its record has it.
        measured: That of the measured frames, which has been checked.
        name: Of the ablation, by its folder.

    Raises:
        RecordError: As :func:`check_report`.
    """
    where = f"{RESULTS}/{measured['name']}/ablations/{name}/run.json"
    with reading(where):
        for key, value in {"experiment": measured["name"], "ablation": name, "report": measured["report"]}.items():
            _same(where, key, job[key], value)
        metrics = dict(measured["metrics"])
        for variant in job["variants"]:
            runs, changed = variant["measured"], variant["overrides"]
            attacks = dict(runs["attacks"])
            _check_measured(runs, where, runs["models"], attacks, TIERS)
            for label, settings in runs["metrics"]:
                is_changed = any(key == "metrics" or f"{key}.".startswith(f"metrics.{label}.") for key in changed)
                if label in metrics and not is_changed:
                    _same(where, f"metrics.{label}", settings, metrics[label])


def check_states(parts: Sequence[str], measured: Job) -> list[str]:
    """Folders of the models whose sharpness was measured, from the tables that a record names.

    Raises:
        RecordError: If one is not of a model of the experiment.
    """
    where = f"{RESULTS}/{measured['name']}/theory/run.json"
    models = "|".join(map(re.escape, measured["models"]))
    for part in parts:
        _path(where, "sharpness", part, rf"{RESULTS}/runs/theory/({models})-{_HASH}/seed-\d+/sharpness\.csv")
    _same(where, "sharpness", sorted(set(parts)), sorted(parts))
    return [str(PurePosixPath(part).parent) for part in parts]


def held_out_names(jobs: Sequence[Job]) -> dict[str, str]:
    """Member names of the held-out tables that jobs name, by their path on the packing machine.

    Each table gets a folder named after its label, with a number if an ablation has another table under that label;
    tables from subfolders of its own folder go there too.
    """
    by_table: dict[str, str] = {}
    folders: set[str] = set()
    for label, table in ((label, table) for job in jobs for label, table in job["heldout"].items()):
        if table not in by_table:
            numbers = ("", *(f".{n}" for n in range(2, len(by_table) + 3)))
            folder = next(name for n in numbers if (name := f"{HELD_OUT}/{label}{n}") not in folders)
            folders.add(folder)
            by_table[table] = f"{folder}/{PurePosixPath(table).name}"
    return by_table


def _check_measured(
    job: Job, where: str, models: Sequence[str], attacks: Mapping[str, str], tiers: Sequence[str]
) -> None:
    """The labels, rows, references and held-out tables of what is measured."""
    for label in (*models, *attacks):
        if not LABEL.fullmatch(label):
            raise RecordError(f"{where}: {_short(label)} is no label; letters, digits, '_', '.' and '-' are allowed")
    for label, _ in (*job["metrics"], *job.get("sweeps", ())):  # files are named by them
        if not is_inside(label) or "/" in label:
            raise RecordError(f"{where}: {_short(label)} is no label: a file cannot have it in its name")
    for row in job["rows"]:
        model, attack = row["model"], row["attack"]
        _known(where, "rows", [model], models)
        _same(where, f"rows of {model}, {attack}: dataset", row["dataset"], {NOT_ATTACKED: "", **attacks}.get(attack))
        _known(where, "folders", row["folders"], _STAGES)
        label = re.escape(model if attack == NOT_ATTACKED else f"{model}.{attack}")
        tier = f"/({'|'.join(tiers)})"
        for stage, folder in row["folders"].items():
            run = re.escape(model) if stage == "unlearn" else label
            tiered = tier if stage in ("sample", "score") else ""
            _path(
                where,
                f"rows of {model}, {attack}",
                folder,
                rf"{RESULTS}/runs/{stage}/{run}-{_HASH}/seed-{{seed}}{tiered}",
            )
        for folder in row.get("before", {}).values():
            before = rf"{re.escape(model)}(\.({'|'.join(map(re.escape, attacks))}))?"
            _path(where, f"rows of {model}, {attack}", folder, rf"{RESULTS}/runs/score/{before}-{_HASH}/seed-\d+{tier}")
        if not row["seeds"] or not all(type(seed) is int for seed in row["seeds"]):
            raise RecordError(f"{where}: rows of {model}, {attack}: {_short(row['seeds'])} are no seeds")
    for reference, path in job["references"].items():
        _path(where, f"references.{reference}", path, rf"{RESULTS}/runs/score/reference-{_HASH}/scores\.parquet")
    metrics, shown_attacks = dict(job["metrics"]), {row["attack"] for row in job["rows"]}
    for metric, of in job["compared"].items():
        _known(where, "compared", of, {NOT_ATTACKED, *attacks})
        read = [reference for attack, reference in of.items() if metric in metrics and attack in shown_attacks]
        _known(where, "compared", read, job["references"])
    _known(where, "heldout", job["heldout"], attacks)
    _check_heldout(job, where)


def _check_heldout(job: Job, where: str) -> None:
    for table in job["heldout"].values():
        _known(where, "heldout", [PurePosixPath(table).name], CAPTION_TABLES)


def _same(where: str, key: str, recorded: Any, expected: Any) -> None:
    """Raises RecordError for the first value that differs, at any depth."""
    if recorded == expected:
        return
    if isinstance(recorded, dict) and isinstance(expected, dict):
        for inner in sorted(recorded.keys() | expected.keys()):
            _same(where, f"{key}.{inner}", recorded.get(inner), expected.get(inner))
    if isinstance(recorded, list) and isinstance(expected, list) and len(recorded) == len(expected):
        for place, values in enumerate(zip(recorded, expected, strict=True)):
            _same(where, f"{key}.{place}", *values)
    raise RecordError(f"{where}: '{key}' is {_short(recorded)}; the configuration says {_short(expected)}")


def _known(where: str, key: str, recorded: Any, known: Any) -> None:
    for value in recorded:
        if value not in known:
            raise RecordError(
                f"{where}: '{key}' has {_short(value)}; the configuration has {_short(sorted(known, key=str))}"
            )


def _path(where: str, key: str, recorded: Any, pattern: str) -> None:
    if not isinstance(recorded, str) or not re.fullmatch(pattern, recorded, flags=re.ASCII):
        raise RecordError(f"{where}: '{key}' reads {_short(recorded)}, which is not where the plan puts it")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
