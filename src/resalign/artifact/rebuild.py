"""The jobs that make an archive's tables, figures and frames again from its raw scores.

No list in the archive decides which files are made or compared: a file is known by its place. The jobs are derived
from the report's record, which :mod:`resalign.artifact.records` compares with the configuration.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from resalign.artifact import records
from resalign.artifact.layout import REBUILD, SAMPLES
from resalign.artifact.records import Job, RecordError
from resalign.config import registry
from resalign.config.experiment import BASE
from resalign.config.plan import RESULTS
from resalign.config.strict import Strict
from resalign.jobs import paper, theory

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
        job: What it is told.
        folder: Where its files lie in the archive.
        made: Files and folders below ``folder`` that it makes, and that must be the same.
        exhibit: Name of the exhibit, of which ``made`` has one file.
    """

    script: str
    job: Job
    folder: str
    made: tuple[str, ...]
    exhibit: str = ""

    def covers(self, member: str) -> bool:
        """Whether it makes a member of the archive."""
        return any(PurePosixPath(member).is_relative_to(f"{self.folder}/{part}") for part in self.made)


class _Series(Strict):
    axis: str
    methods: tuple[str, ...]
    other: tuple[str, ...]


class _Listed(Strict):
    exhibit: str
    title: str
    files: str
    left_out: str


class Words(Strict):
    """Words of an exhibit that are in none of its frames."""

    another_world: str
    series: dict[str, _Series]
    metric_modules: dict[str, str]
    plan: tuple[_Listed, ...]


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
    name = config["name"]
    result = f"{RESULTS}/{name}"
    report = records.told(root, result)
    records.check_report(report, config)
    ablations = {
        ablation: records.told(root, f"{result}/ablations/{ablation}") for ablation in _ablations(result, members)
    }
    for ablation, job in ablations.items():
        records.check_ablation(job, report, ablation)
    held_out = held_out_of(report, ablations.values())

    def inside(job: Job) -> Job:
        return {**job, "heldout": {label: held_out[table] for label, table in job["heldout"].items()}}

    has_images = f"{result}/figures/{SAMPLES}" in members
    packed = inside({**report, "gallery": report["gallery"] if has_images else None})
    yield Rebuild("report", packed, result, ("tables", "figures", "attacks.md"))
    methods = {BASE: BASE, **{model: own["name"] for model, own in config["unlearning"].items()}}
    frames = (*(f"{frame}.csv" for frame in paper.FRAMES), "names.json")
    measured = paper.measured_by(report, methods)
    yield Rebuild("measure", inside(measured), _recorded(root, f"{result}/measured", measured), frames)
    for ablation, job in ablations.items():
        variants = [{**variant, "measured": inside(variant["measured"])} for variant in job["variants"]]
        yield Rebuild("ablation", {**job, "variants": variants}, f"{result}/ablations/{ablation}", MEASURED)
    if any(member.startswith(f"{result}/theory/") for member in members):
        yield from _theory(root, report, inside)
    yield from _exhibits(report, words, ablations, members)


def held_out_of(report: Job, ablations: Collection[Job]) -> dict[str, str]:
    """Members of the held-out tables of the report and of ablations; see :func:`records.held_out_names`."""
    return records.held_out_names([report, *(v["measured"] for job in ablations for v in job["variants"])])


def _ablations(result: str, members: Collection[str]) -> list[str]:
    folder = PurePosixPath(result, "ablations")
    paths = [PurePosixPath(member) for member in members]
    return sorted({path.relative_to(folder).parts[0] for path in paths if path.is_relative_to(folder)})


def _recorded(root: Path, folder: str, job: Job) -> str:
    """The folder, whose record must have the job that is derived for it."""
    recorded = records.told(root, folder)
    if differing := sorted(key for key in {*recorded, *job} if recorded.get(key) != job.get(key)):
        raise RecordError(f"{folder}/run.json: {differing} are not what the report's record and the configuration say")
    return folder


def _theory(root: Path, report: Job, inside: Callable[[Job], Job]) -> Iterator[Rebuild]:
    folder = f"{RESULTS}/{report['name']}/theory"
    measured, linear = f"{folder}/measured", f"{folder}/measured/linear-model"
    states = records.check_states(records.told(root, measured).get("sharpness", []), report)
    regained = {**report, "sharpness": theory.parts_of(folder, states, "sharpness")}
    yield Rebuild("theory_regained", inside(regained), _recorded(root, measured, regained), ("regained.csv",))
    model = {"linear_model": report["config"]["theory"]["linear_model"]}
    yield Rebuild("linear_model", model, _recorded(root, linear, model), ("linear_model.csv",))
    for file, script, job in theory.file_jobs(report, states):
        yield Rebuild(script, job, folder, (PurePosixPath(file).name,))


def _exhibits(
    report: Job, words: Mapping[str, Any], ablations: Collection[str], members: Collection[str]
) -> Iterator[Rebuild]:
    """One for each file of every exhibit that the archive has a file of."""
    result = f"{RESULTS}/{report['name']}"
    for exhibit in paper.exhibits():
        files = paper.files_of(exhibit)
        if not any(f"{result}/paper/{file}" in members for file in files):
            continue
        said = Words.parse(words.get(exhibit), where=f"{REBUILD}: {exhibit}")
        _check_words(exhibit, said, report, ablations, members)
        job = {
            "files": paper.frames(result, exhibit, ablations),
            "report": report["report"],
            **said.model_dump(mode="json"),
        }
        yield from (Rebuild("exhibit", job, f"{result}/paper", (file,), exhibit) for file in files)


def _check_words(exhibit: str, words: Words, report: Job, ablations: Collection[str], members: Collection[str]) -> None:
    """Checks an exhibit's words, as far as that is possible without the ablations' declarations."""
    where = f"{REBUILD}: {exhibit}"
    is_papers = report["report"]["published"] == "comparable" and report["tier"] == "paper"
    if not (words.another_world or is_papers):
        raise RecordError(f"{where}: takes published numbers for this experiment's; its configuration says otherwise")
    if stray := sorted({*words.series} - {*ablations, *(label for label, _ in report["sweeps"])}):
        raise RecordError(f"{where}: has the series {stray}, of which the archive has neither an ablation nor a sweep")
    if exhibit != paper.CONTENTS:
        return
    if [entry.exhibit for entry in words.plan] != paper.exhibits():
        raise RecordError(f"{where}: lists other exhibits than this version has: {paper.exhibits()}")
    for entry in words.plan:
        module, files = registry.member(paper.FAMILY, entry.exhibit), paper.files_of(entry.exhibit)
        is_there = any(f"{RESULTS}/{report['name']}/paper/{file}" in members for file in files)
        if (entry.title, entry.files) != (module.TITLE, ", ".join(files)):
            raise RecordError(f"{where}: calls '{entry.exhibit}' {entry.title!r} with files {entry.files!r}")
        may_be_out = any(hasattr(module, need) for need in _NEEDS) if entry.left_out else _IMAGES in module.READS
        if not (not entry.left_out if is_there else may_be_out):
            said, found = "left out" if entry.left_out else "made", "has it" if is_there else "has it not"
            raise RecordError(f"{where}: '{entry.exhibit}' is {said} there, and the archive {found}")


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
