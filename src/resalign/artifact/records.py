"""What an archive's records say was done, held to its configuration: others wrote both, and nothing is obeyed unseen.

A record may name only what its stage reads, in the place where the plan puts it: raw scores of the model and attack
that a row is of, never another file of the archive, and no file of this machine.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from resalign.config import registry
from resalign.config.attack_data import AttackDataConfig
from resalign.config.captions import CAPTION_TABLES
from resalign.config.experiment import BASE, LABEL, TRAIN
from resalign.config.plan import NOT_ATTACKED, RESULTS
from resalign.config.references import is_inside
from resalign.config.shape import TIERS
from resalign.config.strict import ConfigError

Job = dict[str, Any]
HELD_OUT = "inputs/held-out"  # the held-out sets' tables, of which the report counts the rows
MOST_RECORD_BYTES = 64 << 20  # the report's record has a kilobyte or so for each run
_STAGES = ("unlearn", "attack", "sample", "score")
_HASH = "[0-9a-f]{10}"
_SHOWN_CHARACTERS = 100


class RecordError(ValueError):
    """A record that says what its configuration does not, or that is none."""


def content(path: Path, where: str, most_bytes: int = MOST_RECORD_BYTES) -> bytes:
    """What others have written, unless it is longer than it can be: values take many times their text's memory.

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
    """The job of the stage that wrote a folder, as its record has it.

    Raises:
        RecordError: If there is none.
    """
    where = f"{folder}/run.json"
    try:
        found = json.loads(content(root / where, where).decode("utf-8"))["job"]
    except RecordError:
        raise
    except FileNotFoundError:
        raise RecordError(f"{where}: missing; it says what the files beside it were made of") from None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise RecordError(f"{where}: is no record of a job ({type(error).__name__}: {error})") from None
    if not isinstance(found, dict):
        raise RecordError(f"{where}: its job is no mapping")
    return found


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """Reads values of others, which may be nested and named otherwise, or not be there.

    Raises:
        RecordError: If so.
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


def check_report(job: Job, config: Mapping[str, Any], name: str) -> None:
    """Holds the report's job to the resolved configuration.

    Args:
        job: As the record has it.
        config: As the archive has it.
        name: Of the experiment, by the archive's files.

    Raises:
        RecordError: Naming the first key that differs, or leads elsewhere.
    """
    where = f"{RESULTS}/{name}/run.json"
    with reading(where):
        tier = config["tier"]
        expected = {
            "name": name,
            "config": config,
            "title": config["title"],
            "subtitle": config["subtitle"],
            "concept": config["concept"]["name"],
            "tier": tier,
            "training_seeds": config["tiers"][tier]["training_seeds"],
            "sampling_seed": config["sampling"]["seed"],
            "base": BASE,
            **{key: config[key] for key in ("gallery", "flags", "report")},
        }
        for key, value in expected.items():
            _same(where, key, job[key], value)
        _check_main(job, config, where)
        attacks = {label: entry["dataset"] for label, entry in config["attacks"].items()}
        _same(where, "models", sorted(job["models"]), sorted([BASE, *config["pipelines"], *config["unlearning"]]))
        _same(where, "attacks", sorted(job["attacks"]), sorted(map(list, attacks.items())))
        _same(where, "metrics", sorted(job["metrics"], key=str), sorted(map(list, config["metrics"].items()), key=str))
        _same(where, "sweeps", sorted(label for label, _ in job["sweeps"]), sorted(config["sweeps"]))
        for label, sweep in job["sweeps"]:
            _check_sweep(sweep, config["sweeps"][label], config["attacks"], f"sweeps.{label}", where)
        _known(where, "attacks", job["main_attacks"], attacks)
        _check_measured(job, where, job["models"], attacks, (tier,))
        _same(where, "heldout", sorted(job["heldout"]), sorted(attacks))
        states = sorted((model, attack) for model in job["models"] for attack in (NOT_ATTACKED, *attacks))
        _same(where, "rows", sorted((row["model"], row["attack"]) for row in job["rows"]), states)
        for row in job["rows"]:
            # As Plan.seeds has it: what nothing has trained is the same for all.
            trained = row["attack"] != NOT_ATTACKED or "steps" in config["unlearning"].get(row["model"], {})
            seeds = job["training_seeds"] if trained else job["training_seeds"][:1]
            _same(where, f"seeds of {row['model']}, {row['attack']}", row["seeds"], seeds)
        for metric, of in job["compared"].items():
            own = config["metrics"][metric].get("reference") or config["reference"]
            is_train = own == TRAIN
            trains = {at: config["attacks"][at]["train"] if is_train and at in attacks else own for at in of}
            _same(where, f"compared.{metric}", of, trains)
        _path(where, "scorer_check", job["scorer_check"], rf"{RESULTS}/inputs/scorers-{_HASH}/detectors\.json")
        if attacks:
            _path(where, "overlap", job["overlap"], rf"{RESULTS}/overlap/{_HASH}")
        else:
            _same(where, "overlap", job["overlap"], None)
        for *_, folder in job["timings"]:
            if not (folder.startswith(f"{RESULTS}/") and is_inside(folder)):
                raise RecordError(f"{where}: 'timings' reads {_short(folder)}, which is no folder of the results")


def _check_main(job: Job, config: Mapping[str, Any], where: str) -> None:
    """The main table's attacks: those of ``main``, or else every entry that no value of a sweep has made."""
    if config["main"]:
        _same(where, "main_attacks", job["main_attacks"], config["main"])
        return
    made = {f"{sweep['attack']}-{value}" for sweep in config["sweeps"].values() for value in sweep["values"]}
    if lost := {*config["attacks"]} - made - {*job["main_attacks"]}:
        raise RecordError(f"{where}: 'main_attacks' lacks {_short(sorted(lost))}; the configuration leaves none out")


def _check_sweep(
    sweep: Mapping[str, Any], own: Mapping[str, Any], attacks: Mapping[str, Any], key: str, where: str
) -> None:
    """A sweep's words, and that the attack of each of its values has that value's settings, and its base's others."""
    labels = dict(sweep["attacks"])
    words = {name: own[name] for name in ("title", "axis", "note", "metrics")}
    expected = {**words, "attacks": sorted(own["values"] or own["attacks"])}
    _same(where, key, {**sweep, "attacks": sorted(labels)}, expected)
    if own["attacks"]:
        _same(where, key, labels, own["attacks"])
    for value, changes in own["values"].items():
        found, base = attacks[labels[value]], attacks[own["attack"]]
        settings = {"name" if name == "attack" else name: setting for name, setting in changes.items()}
        # Another method has other settings than its base.
        others = base if settings.get("name", base["name"]) == base["name"] else {}
        _same(where, f"{key}.{value}", found, _attack({**found, **others, **settings}, where))


def _attack(entry: Mapping[str, Any], where: str) -> Job:
    """An attack's entry as the resolved configuration has it: what a sweep changes may be nested, with defaults."""
    data = {name: entry[name] for name in AttackDataConfig.model_fields if name in entry}
    settings = {name: value for name, value in entry.items() if name not in (*data, "name")}
    config = registry.config_class("attacks", entry["name"]).parse(settings, where=where)
    own = AttackDataConfig.parse(data, where=where).model_dump()
    return {**own, "name": entry["name"], **config.model_dump(mode="json")}


def check_ablation(job: Job, report: Job, name: str) -> None:
    """Holds an ablation's job to the report's: what its variants do not say they change is as it is there.

    Args:
        job: As its record has it.
        report: The report's, which has been checked.
        name: Of the ablation, by its folder.

    Raises:
        RecordError: As :func:`check_report`.
    """
    where = f"{RESULTS}/{report['name']}/ablations/{name}/run.json"
    with reading(where):
        for key, value in {"experiment": report["name"], "ablation": name, "report": report["report"]}.items():
            _same(where, key, job[key], value)
        own = dict(report["metrics"])
        for variant in job["variants"]:
            measured, changed = variant["measured"], variant["overrides"]
            attacks = dict(measured["attacks"])
            _check_measured(measured, where, measured["models"], attacks, TIERS)
            for label, settings in measured["metrics"]:
                is_changed = any(key == "metrics" or f"{key}.".startswith(f"metrics.{label}.") for key in changed)
                if label in own and not is_changed:
                    _same(where, f"metrics.{label}", settings, own[label])


def check_states(parts: Sequence[str], report: Job) -> list[str]:
    """Folders of the models whose sharpness was measured, by the tables that a record names.

    Raises:
        RecordError: If one is not of a model of the report.
    """
    where = f"{RESULTS}/{report['name']}/theory/measured/run.json"
    models = "|".join(map(re.escape, report["models"]))
    for part in parts:
        _path(where, "sharpness", part, rf"{RESULTS}/runs/theory/({models})-{_HASH}/seed-\d+/sharpness\.csv")
    _same(where, "sharpness", sorted(set(parts)), sorted(parts))
    return [str(PurePosixPath(part).parent) for part in parts]


def held_out_names(jobs: Sequence[Job]) -> dict[str, str]:
    """Where the archive has the held-out tables that jobs name, by their path, which may lead anywhere.

    Each is in a folder named by its label, numbered where an ablation's is another table than the experiment's: beside
    it lie the tables of the folders inside its own.
    """
    found: dict[str, str] = {}
    folders: set[str] = set()
    for label, table in ((label, table) for job in jobs for label, table in job["heldout"].items()):
        if table not in found:
            numbers = ("", *(f".{n}" for n in range(2, len(found) + 3)))
            folder = next(name for n in numbers if (name := f"{HELD_OUT}/{label}{n}") not in folders)
            folders.add(folder)
            found[table] = f"{folder}/{PurePosixPath(table).name}"
    return found


def _check_measured(
    job: Job, where: str, models: Sequence[str], attacks: Mapping[str, str], tiers: Sequence[str]
) -> None:
    """The labels, rows, references and held-out tables of what is measured."""
    for label in (*models, *attacks):
        if not LABEL.fullmatch(label):
            raise RecordError(f"{where}: {_short(label)} is no label; letters, digits, '_', '.' and '-' are allowed")
    for label, _ in (*job["metrics"], *job["sweeps"]):  # files are named by them
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
            own = re.escape(model) if stage == "unlearn" else label
            tiered = tier if stage in ("sample", "score") else ""
            _path(
                where,
                f"rows of {model}, {attack}",
                folder,
                rf"{RESULTS}/runs/{stage}/{own}-{_HASH}/seed-{{seed}}{tiered}",
            )
        for folder in row.get("before", {}).values():
            before = rf"{re.escape(model)}(\.({'|'.join(map(re.escape, attacks))}))?"
            _path(where, f"rows of {model}, {attack}", folder, rf"{RESULTS}/runs/score/{before}-{_HASH}/seed-\d+{tier}")
        if not row["seeds"] or not all(type(seed) is int for seed in row["seeds"]):
            raise RecordError(f"{where}: rows of {model}, {attack}: {_short(row['seeds'])} are no seeds")
    for reference, path in job["references"].items():
        _path(where, f"references.{reference}", path, rf"{RESULTS}/runs/score/reference-{_HASH}/scores\.parquet")
    for of in job["compared"].values():
        _known(where, "compared", of, {NOT_ATTACKED, *attacks})
        _known(where, "compared", of.values(), job["references"])
    _known(where, "heldout", job["heldout"], attacks)
    for table in job["heldout"].values():
        _known(where, "heldout", [PurePosixPath(table).name], CAPTION_TABLES)


def _same(where: str, key: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise RecordError(f"{where}: '{key}' is {_short(found)}; the configuration says {_short(expected)}")


def _known(where: str, key: str, found: Any, known: Any) -> None:
    for value in found:
        if value not in known:
            raise RecordError(
                f"{where}: '{key}' has {_short(value)}; the configuration has {_short(sorted(known, key=str))}"
            )


def _path(where: str, key: str, found: Any, pattern: str) -> None:
    if not isinstance(found, str) or not re.fullmatch(pattern, found, flags=re.ASCII):
        raise RecordError(f"{where}: '{key}' reads {_short(found)}, which is not where the plan puts it")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
