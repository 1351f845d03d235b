"""The jobs that make an archive's tables, figures and frames again from its raw scores.

No list in the archive decides which files are made or compared: a file is known by its place. The jobs are derived
from the report's record, which :mod:`resalign.artifact.records` compares with the configuration.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from resalign.artifact import records
from resalign.artifact.layout import REBUILD, SAMPLES
from resalign.artifact.records import Job, RecordError
from resalign.config.plan import RESULTS, Plan
from resalign.jobs import exhibit, measure, theory
from resalign.jobs.exhibit import Words

MEASURED = ("values.csv", "per_run.csv", "variants.json")  # of an ablation
# An exhibit that reads this frame shows generated images, which most archives leave out.
_IMAGES = "samples"
# What an exhibit may lack and be left out for; any other is of every experiment.
_NEEDS = ("ATTACKED", "RULED", "ABLATION", "THEORY")


@dataclass(frozen=True)
class Rebuild:
    """A stage that makes files of the archive again.

    Attributes:
        script: Name of the stage's script.
        job: Its job, as plain JSON.
        folder: Where its files lie in the archive.
        made: Files and folders below ``folder`` that it makes, and that must be the same.
    """

    script: str
    job: Job
    folder: str
    made: tuple[str, ...]

    def covers(self, member: str) -> bool:
        """Whether it makes a member of the archive."""
        return any(PurePosixPath(member).is_relative_to(f"{self.folder}/{part}") for part in self.made)


def rebuilds(
    root: Path, config: Mapping[str, Any], words: Mapping[str, Any], members: Collection[str]
) -> list[Rebuild]:
    """Everything that is made again.

    Args:
        root: Folder with the archive's results.
        config: The resolved configuration.
        words: Of exhibits by name, from :func:`read_words`.
        members: Names of the archive's members.

    Raises:
        RecordError: If a record contradicts the configuration, or leads elsewhere; naming it.
        ConfigError: If an exhibit's words are none.
    """
    with records.reading(f"{RESULTS}/{config['name']}"):
        return list(_rebuilds(root, config, words, members))


def _rebuilds(
    root: Path, config: Mapping[str, Any], words: Mapping[str, Any], members: Collection[str]
) -> Iterator[Rebuild]:
    result = f"{RESULTS}/{config['name']}"
    planned = records.plan_of(config)
    report, measured = records.told(root, result), records.told(root, f"{result}/measured")
    records.check_report(report, measured, planned, config)
    ablations = {
        ablation: records.told(root, f"{result}/ablations/{ablation}") for ablation in _ablations(result, members)
    }
    for ablation, job in ablations.items():
        records.check_ablation(job, measured, ablation)
    held_out = held_out_of(measured, ablations.values())

    def inside(job: Job) -> Job:
        return {**job, "heldout": {label: held_out[table] for label, table in job["heldout"].items()}}

    yield Rebuild("measure", inside(measured), f"{result}/measured", measure.FILES)
    has_images = f"{result}/figures/{SAMPLES}" in members
    packed = {**report, "gallery": report["gallery"] if has_images else None}
    yield Rebuild("report", packed, result, ("tables", "figures", "attacks.md"))
    for ablation, job in ablations.items():
        variants = [{**variant, "measured": inside(variant["measured"])} for variant in job["variants"]]
        yield Rebuild("ablation", {**job, "variants": variants}, f"{result}/ablations/{ablation}", MEASURED)
    if any(member.startswith(f"{result}/theory/") for member in members):
        yield from _theory(root, measured, planned)
    yield from _exhibits(report, measured, words, ablations, members)


def held_out_of(measured: Job, ablations: Collection[Job]) -> dict[str, str]:
    """Members of the held-out tables of frames and of ablations; see :func:`records.held_out_names`."""
    return records.held_out_names([measured, *(v["measured"] for job in ablations for v in job["variants"])])


def _ablations(result: str, members: Collection[str]) -> list[str]:
    folder = PurePosixPath(result, "ablations")
    paths = [PurePosixPath(member) for member in members]
    return sorted({path.relative_to(folder).parts[0] for path in paths if path.is_relative_to(folder)})


def _recorded(root: Path, folder: str, job: Job) -> str:
    """Checks that a folder's record has the derived job, and returns the folder."""
    recorded = records.told(root, folder)
    if differing := sorted(key for key in {*recorded, *job} if recorded.get(key) != job.get(key)):
        raise RecordError(f"{folder}/run.json: {differing} are not what the report's record and the configuration say")
    return folder


def _theory(root: Path, measured: Job, planned: Plan) -> Iterator[Rebuild]:
    folder, linear = theory.folder(planned), theory.linear_model_folder(planned)
    recorded = records.told(root, folder)
    states = records.check_states(recorded["tables"]["sharpness"], measured)
    tables = {table: [f"{state}/{table}.csv" for state in states] for table in theory.STATE_TABLES}
    job = {**theory.TheoryShownJob.of(planned).plain(), "tables": tables}
    model = theory.LinearModelJob.of(planned).plain()
    made = (theory.LINEAR_MODEL,)
    yield Rebuild("linear_model", model, _recorded(root, linear, model), made)
    yield Rebuild("theory_shown", job, _recorded(root, folder, job), theory.SHOWN)


def _exhibits(
    report: Job, measured: Job, words: Mapping[str, Any], ablations: Collection[str], members: Collection[str]
) -> Iterator[Rebuild]:
    """One rebuild for every exhibit of which the archive has a file."""
    result = f"{RESULTS}/{report['name']}"
    for name in exhibit.exhibits():
        files = exhibit.files_of(name)
        if not any(f"{result}/paper/{file}" in members for file in files):
            continue
        parsed = Words.parse(words.get(name), where=f"{REBUILD}: {name}")
        _check_words(name, parsed, report, {*ablations, *(label for label, _ in measured["sweeps"])}, members)
        frames = exhibit.frames(result, name, ablations)
        job = {"exhibit": name, "files": frames, "report": report["report"], "words": parsed.plain()}
        yield Rebuild("exhibit", job, f"{result}/paper", tuple(files))


def _check_words(name: str, words: Words, report: Job, series: Collection[str], members: Collection[str]) -> None:
    """Checks an exhibit's words as far as possible without the declarations of the ablations."""
    where = f"{REBUILD}: {name}"
    is_papers = report["report"]["published"] == "comparable" and report["tier"] == "paper"
    if not (words.another_world or is_papers):
        raise RecordError(f"{where}: takes published numbers for this experiment's; its configuration says otherwise")
    if stray := sorted({*words.series} - {*series}):
        raise RecordError(f"{where}: has the series {stray}, of which the archive has neither an ablation nor a sweep")
    if name != exhibit.CONTENTS:
        return
    if [entry.exhibit for entry in words.plan] != exhibit.exhibits():
        raise RecordError(f"{where}: lists other exhibits than this version has: {exhibit.exhibits()}")
    for entry in words.plan:
        module, files = exhibit.member(entry.exhibit), exhibit.files_of(entry.exhibit)
        is_there = any(f"{RESULTS}/{report['name']}/paper/{file}" in members for file in files)
        if (entry.title, entry.files) != (module.TITLE, ", ".join(files)):
            raise RecordError(f"{where}: calls '{entry.exhibit}' {entry.title!r} with files {entry.files!r}")
        may_be_out = any(hasattr(module, need) for need in _NEEDS) if entry.left_out else _IMAGES in module.READS
        if not (not entry.left_out if is_there else may_be_out):
            declared, actual = "left out" if entry.left_out else "made", "has it" if is_there else "has it not"
            raise RecordError(f"{where}: '{entry.exhibit}' is {declared} there, and the archive {actual}")


def words_text(words: Mapping[str, Any]) -> bytes:
    """The exhibits' words as the archive has them."""
    return (json.dumps({"exhibits": words}, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def read_words(path: Path) -> dict[str, Any]:
    """The inverse of :func:`words_text`, for :class:`Words` to check.

    Raises:
        RecordError: If it has none.
    """
    try:
        return dict(json.loads(records.content(path, REBUILD))["exhibits"])
    except RecordError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RecordError(f"{REBUILD}: has no exhibits' words ({type(error).__name__}: {error})") from None
