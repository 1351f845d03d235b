"""Gathers the members of an archive from a finished experiment's results."""

from __future__ import annotations

import csv
import json
import math
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from resalign import disclosure, shards
from resalign.artifact import crate, layout, readme, rebuild
from resalign.artifact.layout import FORMAT, MANIFESTS, PROVENANCE, covers
from resalign.artifact.machine import machine, packages
from resalign.artifact.published import Members, published
from resalign.artifact.source import Source
from resalign.config.assets import FETCHED, HASHES
from resalign.config.closure import ROOT
from resalign.config.plan import RESULTS
from resalign.config.shape import ArtifactConfig
from resalign.config.strict import ConfigError
from resalign.data.captions import caption_tables
from resalign.data.members import folder_in_place
from resalign.hashes import NAME, RECORDS, Entry, file_hash, to_text, verified
from resalign.jobs import report as sources
from resalign.jobs.artifact import ArtifactJob

# A page embeds its pictures; its figures are SVG elements.
_PICTURE = re.compile(rb"data:image/(?:png|jpeg|webp|gif);base64,[A-Za-z0-9+/=]+")
_NO_PICTURE = b"data:,"
# A link to a file: no scheme, no place in the page itself, no absolute path.
_LINK = re.compile(rb'((?:href|src)=")(?![#/]|[a-z]+:)([^"#?]+)')
_ASSETS = f"{RESULTS}/assets/"


def gather(job: ArtifactJob, source: Source, root: Path) -> Members:
    """Every member of the archive.

    Args:
        job: The archive's.
        source: The source tree.
        root: Folder that the job's paths are relative to.

    Raises:
        ConfigError: If a file that the archive must have is missing, or one has what looks like a secret.
    """
    settings = job.artifact
    measured = _told(root / job.result / "measured")
    members: Members = {f"{layout.SOURCE}/{name}": content for name, content in source.files.items()}
    if source.patch:
        members[layout.PATCH] = source.patch
    members |= {f"{layout.UNTRACKED}/{name}": content for name, content in (source.untracked or {}).items()}
    behind = [run for ablation in job.ablations for run in ablation.runs]
    folders = [*(folder for *_, folder in job.jobs), *job.references, *behind, *job.theory]
    for path in [*_result_files(job, settings, root), *_records(folders, root), *_large_files(job, settings, root)]:
        members[layout.place(path.relative_to(root).as_posix())] = path
    for table, name in rebuild.held_out_of(
        measured, [_told(root / ablated.folder) for ablated in job.ablations]
    ).items():
        members |= _caption_tables(root / table, name)
    members[layout.REBUILD] = rebuild.words_text(job.words)
    members[layout.config_name(job.name)] = _resolved(root / job.result)
    members[layout.ASSETS] = _json({name: _hashed(name, asset, root) for name, asset in job.assets.items()})
    members |= {name: _existing(root / path) for name, path in job.own_inputs.items()}
    members |= _provenance(job, settings, folders, root)
    claims = readme.claims(job, members)
    members[layout.TIMES] = readme.times(job, claims, root).encode()
    members[layout.README] = readme.readme(job, source, claims, settings).encode()
    members = published(members)
    members[layout.CRATE] = _json(crate.metadata(job, source, members))
    for name in MANIFESTS:
        entries = {member: Entry.of(content) for member, content in members.items() if covers(name, member)}
        members[name] = to_text(entries, FORMAT).encode()
    return members


def _told(folder: Path) -> dict[str, Any]:
    """The recorded job of the stage that wrote a folder."""
    recorded: dict[str, Any] = json.loads(_existing(folder / "run.json").read_text(encoding="utf-8"))["job"]
    return recorded


def _resolved(folder: Path) -> bytes:
    """The configuration of a result as YAML, equal to the one in its published record."""
    record = disclosure.without_places(_existing(folder / "run.json").read_text(encoding="utf-8"), [ROOT])
    config = json.loads(record)["job"]["config"]
    return yaml.safe_dump(config, sort_keys=False, width=math.inf, allow_unicode=True).encode()


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file, and the archive must have it; run 'snakemake … -- all' again")
    return verified(path)


def _caption_tables(table: Path, name: str) -> Members:
    """All tables of captions in the folder of ``table``, whose own name in the archive is ``name``."""
    tables = caption_tables(folder_in_place(table.parent)) or [_existing(table).name]
    return {(PurePosixPath(name).parent / inner).as_posix(): table.parent / inner for inner in tables}


def _result_files(job: ArtifactJob, settings: ArtifactConfig, root: Path) -> Iterator[Path]:
    """The declared files of the result, with their stages' times."""
    result = root / job.result
    for path in (root / file for file in job.files):
        if path == result / sources.PAGE:  # it has times and pictures: see _provenance
            continue
        if path == result / "figures":  # which there are depends on what was measured; Snakemake empties it before
            figures = (figure for figure in sorted(path.iterdir()) if not figure.name.startswith("."))
            yield from (figure for figure in figures if settings.images or figure.name != layout.SAMPLES)
            continue
        yield _existing(path)
        if path.name == "run.json":
            yield _existing(path.with_name(layout.TIMING))


def _records(folders: list[str], root: Path) -> Iterator[Path]:
    """The small files of every job: raw scores, records, histories, image lists."""
    for folder in dict.fromkeys(folders):
        _existing(root / folder / "run.json")
        is_asset = folder.startswith(_ASSETS)  # of which the archive has hashes, and whose licence is its owner's
        for path in sorted((root / folder).iterdir()):
            if path.name != NAME and (path.name in RECORDS or (path.suffix in layout.RECORDS and not is_asset)):
                yield verified(path)


def _large_files(job: ArtifactJob, settings: ArtifactConfig, root: Path) -> Iterator[Path]:
    """Weights of the unlearned models, and generated images, if the settings include them."""
    for stage, _, _, folder in job.jobs:
        if settings.weights and stage == "unlearn":
            yield _existing(root / folder / "weights.safetensors")
        if settings.images and stage == "sample":
            with _existing(root / folder / "images.csv").open(encoding="utf-8", newline="") as table:
                files = (shards.holder(root / row["path"]) for row in csv.DictReader(table))
                yield from map(_existing, dict.fromkeys(files))


def _hashed(name: str, asset: dict[str, Any], root: Path) -> dict[str, Any]:
    """An asset with the sha256 of its files: those recorded when it was fetched, else those of its present files."""
    folder = root / asset["folder"]
    files = sorted([folder] if folder.is_file() else (path for path in folder.rglob("*") if path.is_file()))
    if not files:
        raise ConfigError(f"asset '{name}': nothing lies in {folder}; the archive needs the hashes of its files")
    by_name = {path.relative_to(folder).as_posix(): path for path in files if path.name not in RECORDS}
    hashes = {file: file_hash(verified(path)) for file, path in by_name.items()}
    if asset["origin"] in FETCHED:
        return {**asset, "sha256": hashes}
    lock = root / HASHES / f"{asset['name']}.json"
    locked = {"lock": json.loads(lock.read_text(encoding="utf-8"))} if lock.is_file() else {}
    # Of thousands of images a digest of digests: the sha256 of the same list, as `sha256sum` would print it.
    listed = "".join(f"{sha256}  {file}\n" for file, sha256 in sorted(hashes.items()))
    return {**asset, **locked, "files": len(hashes), "sha256_of_sha256sums": Entry.of(listed.encode()).sha256}


def _provenance(job: ArtifactJob, settings: ArtifactConfig, folders: list[str], root: Path) -> Members:
    """Members that differ between two runs: logs, the page with its times, this machine and its packages."""
    page = _linked(_existing(root / job.result / "report.html").read_bytes(), job.result)
    members: Members = {
        layout.PAGE: page if settings.images else _PICTURE.sub(_NO_PICTURE, page),
        f"{PROVENANCE}machine.json": _json(machine()),
        f"{PROVENANCE}packages.txt": packages().encode(),
    }
    return members | _logs(job, folders, root)


def _logs(job: ArtifactJob, folders: list[str], root: Path) -> Members:
    """The logs of the packed jobs, if kept: a rule names its log after the folder that it writes, or the experiment."""
    paths = [PurePosixPath(folder).parts for folder in folders]
    runs = {"/".join([*parts[2:4], ".".join(parts[4:])]).rstrip("/") for parts in paths if parts[1] == "runs"}
    others = {parts[-1] for parts in paths if parts[1] != "runs"}  # data sets, by whichever rule
    logs_of_all = {
        *(f"{rule}/{job.name}" for rule in ("report", "measure", "theory")),
        f"theory/{job.name}.linear-model",
    }
    logs_of_all |= {f"paper/{job.name}.{exhibit}" for exhibit in job.words}
    logs_of_all |= {f"ablations/{job.name}.{PurePosixPath(ablation.folder).name}" for ablation in job.ablations}
    logs = root / "logs"
    by_name = {path.relative_to(logs).as_posix(): path for path in sorted(logs.rglob("*.log"))}
    return {
        f"{PROVENANCE}logs/{name}": path
        for name, path in by_name.items()
        if name.removesuffix(".log") in runs | logs_of_all or path.stem in others
    }


def _linked(page: bytes, result: str) -> bytes:
    """The page with its relative links adapted to its place in ``provenance/``."""

    def moved(match: re.Match[bytes]) -> bytes:
        path = posixpath.normpath(posixpath.join(result, match[2].decode()))
        return match[1] + f"../{path}".encode()

    return _LINK.sub(moved, page)


def _json(values: Any) -> bytes:
    return (json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
