"""Verifies an archive: its digests, and every file that this checkout's code makes again from its raw scores.

The archive is data. This module and :mod:`resalign.artifact.rebuild` decide which of its files must be made again, by
which script, and how exactly; its own code runs only on request.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from resalign.artifact import layout, records
from resalign.artifact.compare import differences
from resalign.artifact.isolation import IsolationError
from resalign.artifact.layout import MANIFESTS, PROVENANCE
from resalign.artifact.makers import Maker, its_code, own_code
from resalign.artifact.rebuild import Rebuild, read_words, rebuilds
from resalign.artifact.records import RecordError
from resalign.artifact.unpack import integrity
from resalign.config import registry
from resalign.config.closure import ROOT, import_closure
from resalign.config.plan import RESULTS
from resalign.config.strict import MAX_BYTES, ConfigError, read_yaml
from resalign.jobs import exhibit
from resalign.jobs.artifact import CONFIGURATIONS, PROMPTS
from resalign.tracking import log

# What has a place in an archive beside results that are made again.
_FILES = (layout.README, layout.CRATE, layout.REBUILD, layout.ASSETS, layout.PATCH, *MANIFESTS)
_RAW = ("runs", "assets", "inputs", "overlap")  # folders of the results that are no experiment's
_FOLDERS = (
    PROVENANCE,
    *(f"{part}/" for part in (layout.SOURCE, layout.UNTRACKED, CONFIGURATIONS, PROMPTS)),
    *(f"{part}/" for part in (records.HELD_OUT, *(f"{RESULTS}/{name}" for name in _RAW))),
)
_RECORDING = ("report", "measure", "ablation", "theory_shown", "linear_model")  # scripts that leave a run.json


def verify(
    path: Path, folder: Path, *, most_bytes: int | None = None, runs_its_code: bool = False, isolated: bool = True
) -> list[str]:
    """Everything.

    Args:
        path: The archive.
        folder: An empty folder of its own.
        most_bytes: See :func:`resalign.artifact.unpack.integrity`.
        runs_its_code: Whether the archive's own code makes the files, in place of this checkout's.
        isolated: Whether that is cut off from network and files.

    Returns:
        What is wrong; empty if nothing is.
    """
    unpacked = folder / "unpacked"
    problems = integrity(path, unpacked, most_bytes)
    if problems:
        return [*problems, "nothing was made again: the archive is not the one that was written"]
    log.info("%s: its digest and every member's are right", path.name)
    members = frozenset(file.relative_to(unpacked).as_posix() for file in unpacked.rglob("*") if file.is_file())
    try:
        config = read_config(unpacked, members)
        planned = rebuilds(unpacked, config, read_words(unpacked / layout.REBUILD), members)
        with records.reading(layout.config_name(config["name"])):
            notes = [note for note in (lock_note(unpacked, ROOT), version_note(unpacked, ROOT, config)) if note]
    except (ConfigError, RecordError) as error:
        return [_line(error), "nothing was made again: no job is taken from a record that is not right"]
    for note in notes:
        log.warning("%s", note)
    problems = list(out_of_place(members, config["name"], planned))
    workplace = folder / "workplace"
    makers = its_code(unpacked, workplace, isolated=isolated) if runs_its_code else own_code(unpacked, workplace)
    try:
        with makers as maker:
            problems += made_again(planned, unpacked, members, folder / "made", maker)
    except (ConfigError, IsolationError, OSError) as error:
        return [*problems, f"{_line(error)}; nothing more was made again"]
    if problems and notes and not runs_its_code:
        log.warning("%s; --run-its-code makes everything by the archive's own", "; ".join(notes))
    return problems


def read_config(unpacked: Path, members: Collection[str]) -> dict[str, Any]:
    """Reads the resolved configuration, which names an archive's results.

    Raises:
        RecordError: If there is none, or several, or it has another name.
        ConfigError: If it is not YAML.
    """
    configs = [member for member in members if member.startswith("config/")]
    if len(configs) != 1:
        raise RecordError(f"config/: has {sorted(configs)[:3]}; an archive has the one configuration of its experiment")
    where, member = unpacked / configs[0], configs[0]
    with records.reading(member):
        text = records.content(where, member, MAX_BYTES).decode("utf-8")
        try:
            # An entry that is written once and named often is how a small file fills a memory.
            has_alias = any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text))
        except yaml.YAMLError as error:
            raise RecordError(f"{member}: not valid YAML: {error}") from None
        if has_alias:
            raise RecordError(f"{member}: has an alias, '*…'; a resolved configuration has every value in its place")
        # As JSON has it: what a record is compared with.
        config: dict[str, Any] = json.loads(json.dumps(read_yaml(where), default=str))
    name = config.get("name")
    is_name = isinstance(name, str) and re.fullmatch("[a-z0-9][a-z0-9_-]*", name)
    if not is_name or member != layout.config_name(str(name)):
        raise RecordError(f"{member}: its name is {name!r}; the file and the results have the experiment's")
    if name in _RAW:
        raise RecordError(f"{member}: an experiment called '{name}' has its tables among raw scores")
    return config


def out_of_place(members: Collection[str], name: str, rebuilds: Collection[Rebuild]) -> Iterator[str]:
    """One line for each member that is neither made again nor raw data, source or provenance."""
    recorded = {f"{rebuild.folder}/run.json" for rebuild in rebuilds if rebuild.script in _RECORDING}
    for member in sorted(members):
        is_known = member in (*_FILES, layout.config_name(name)) or member.startswith(_FOLDERS)
        if is_known or member in recorded or any(rebuild.covers(member) for rebuild in rebuilds):
            continue
        if member.startswith(f"{RESULTS}/{name}/"):
            yield f"{member}: is in the archive, and nothing makes it of raw scores"
        else:
            yield f"{member}: has no place in an archive"


def made_again(
    rebuilds: Collection[Rebuild], unpacked: Path, members: Collection[str], folder: Path, maker: Maker
) -> Iterator[str]:
    """Makes tables and figures again and compares them.

    Args:
        rebuilds: What is made.
        unpacked: The archive.
        members: Names of its members.
        folder: Where to make it.
        maker: Makes it.

    Yields:
        What differs, a line each, naming file and row.
    """
    differing: set[str] = set()
    for number, rebuild in enumerate(rebuilds):
        # Exhibits share a folder: one is named by the first of its files.
        is_named = rebuild.script == "exhibit" or len(rebuild.made) == 1
        label = f"{rebuild.folder}/{rebuild.made[0]}" if is_named else rebuild.folder
        read = set(_texts_in(rebuild.job))
        if forged := sorted(member for member in differing if {member, str(PurePosixPath(member).parent)} & read):
            yield f"{label}: not made again: it is made of {forged[0]}, which is not right"
            continue
        log.info("making %s again by %s ...", label, rebuild.script)
        if (error := maker(rebuild, folder / str(number))) is not None:
            yield f"{label}: {rebuild.script} failed: {error}"
            differing.update(member for member in members if rebuild.covers(member))
            continue
        for member, lines in _compared(rebuild, unpacked, members, folder / str(number)):
            differing.add(member)
            yield from lines
        shutil.rmtree(folder / str(number))


def _compared(
    rebuild: Rebuild, unpacked: Path, members: Collection[str], output: Path
) -> Iterator[tuple[str, list[str]]]:
    """Members that differ from the ones made again, with the differences."""
    files = (file.relative_to(output).as_posix() for file in output.rglob("*") if file.is_file())
    made = {member for file in files if rebuild.covers(member := f"{rebuild.folder}/{file}")}
    handed_on = {member for member in members if rebuild.covers(member)}
    equal = 0
    for member in sorted(handed_on | made):
        if member not in made:
            yield member, [f"{member}: is in the archive, and is not made of its raw scores"]
        elif member not in handed_on:
            yield member, [f"{member}: is made of the archive's raw scores, and is not in it"]
        else:
            again = output / PurePosixPath(member).relative_to(rebuild.folder)
            if lines := differences(member, unpacked / member, again):
                yield member, lines
            equal += (unpacked / member).read_bytes() == again.read_bytes()
    log.info("%s: %d of %d files are equal to the byte", rebuild.folder, equal, len(handed_on))


def _texts_in(value: Any) -> Iterator[str]:
    """Every text in a job, which includes the files that it reads."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts_in(inner)


def lock_note(unpacked: Path, root: Path) -> str | None:
    """A warning if the package locks of this checkout and the archive differ."""
    name = "envs/requirements.lock"
    if _same_file(unpacked / layout.SOURCE / name, root / name):
        return None
    return f"the archive's {name} is not this checkout's: numbers may differ in their last digits"


def version_note(unpacked: Path, root: Path, config: Mapping[str, Any]) -> str | None:
    """A warning if other code than this checkout's made the archive's tables and figures."""
    metrics = {metric["name"] for metric in config["metrics"].values()} & {*registry.members("metrics")}
    modules = [f"resalign.metrics.{metric}" for metric in sorted(metrics)]
    modules += [f"resalign.{exhibit.FAMILY}.{name}" for name in registry.members(exhibit.FAMILY)]
    code = import_closure(*(f"scripts/{name}.py" for name in (*_RECORDING, "exhibit")), *modules)
    files = exhibit.with_published(map(str, code))
    other = [file for file in files if not _same_file(unpacked / layout.SOURCE / file, root / file)]
    if (unpacked / layout.PATCH).is_file():
        other.append(layout.PATCH)
    if not other:
        return None
    return (
        f"the archive was made by another version: of {len(files)} files of code that make tables and figures, "
        f"{len(other)} are not this checkout's, such as {other[0]}"
    )


def _line(error: Exception) -> str:
    return "; ".join(str(error).splitlines())


def _same_file(theirs: Path, ours: Path) -> bool:
    return theirs.is_file() and ours.is_file() and theirs.read_bytes() == ours.read_bytes()
