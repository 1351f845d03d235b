"""Gathers the members of an archive from a finished experiment's results."""

from __future__ import annotations

import csv
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from resalign.artifact import crate, layout, manifest, readme, rebuild
from resalign.artifact.machine import machine, packages
from resalign.artifact.manifest import MANIFESTS, PROVENANCE, Entry
from resalign.artifact.source import Source
from resalign.config.assets import HASHES
from resalign.config.plan import RESULTS
from resalign.config.shape import ArtifactConfig
from resalign.config.strict import ConfigError

Members = dict[str, bytes | Path]
# A page embeds its pictures; its figures are SVG elements.
_PICTURE = re.compile(rb"data:image/(?:png|jpeg|webp|gif);base64,[A-Za-z0-9+/=]+")
_NO_PICTURE = b"data:,"
# A link to a file: no scheme, no place in the page itself, no absolute path.
_LINK = re.compile(rb'((?:href|src)=")(?![#/]|[a-z]+:)([^"#?]+)')
_ASSETS = f"{RESULTS}/assets/"
_OWN_RECORDS = ("run.json", "timing.json")  # of a job in an asset's folder, beside what it made


def gather(job: dict[str, Any], source: Source, root: Path) -> Members:
    """Every member of the archive.

    Args:
        job: From :func:`resalign.artifact.contents.artifact_job`.
        source: The source tree.
        root: Folder that the job's paths are relative to.

    Raises:
        ConfigError: If a file that the archive must have is missing.
    """
    settings = ArtifactConfig.parse(job["artifact"], where="artifact")
    result = root / job["result"]
    report = json.loads(_existing(result / "run.json").read_text(encoding="utf-8"))["job"]
    members: Members = {f"{layout.SOURCE}/{name}": content for name, content in source.files.items()}
    if source.patch:
        members[layout.PATCH] = source.patch
    members |= {f"{layout.UNTRACKED}/{name}": content for name, content in (source.untracked or {}).items()}
    folders = [*(folder for *_, folder in job["jobs"]), *job["references"], *_read_by(result, settings, root)]
    for path in [*_result_files(result, settings), *_records(folders, root), *_large_files(job, settings, root)]:
        members[layout.place(path.relative_to(root).as_posix())] = path
    for label, table in report["heldout"].items():
        members[f"{rebuild.HELD_OUT}/{label}.csv"] = _existing(root / table)
    rebuilds = [rebuild.report_rebuild(job["result"], report, job["modules"], with_images=settings.images)]
    rebuilds += _frames(job, result)
    for exhibit in job["exhibits"]:
        rebuilds.append(rebuild.exhibit_rebuild(**exhibit, with_images=settings.images))
        members |= {layout.place(path): _existing(root / path) for path in exhibit["job"]["files"].values()}
    resolved = yaml.safe_dump(report["config"], sort_keys=False, width=110, allow_unicode=True)
    members[layout.REBUILD] = rebuild.to_text(rebuilds, settings).encode()
    members[layout.config_name(job["name"])] = resolved.encode()
    members[layout.ASSETS] = _json({name: _hashed(name, asset, root) for name, asset in job["assets"].items()})
    members |= _provenance(job, settings, folders, root)
    claims = readme.claims(job, members, rebuilds, settings)
    members[layout.TIMES] = readme.times(job, claims, root).encode()
    members[layout.README] = readme.readme(job, source, claims, settings).encode()
    members[layout.CRATE] = _json(crate.metadata(job, source, members))
    for name in MANIFESTS:
        entries = {member: Entry.of(content) for member, content in members.items() if manifest.covers(name, member)}
        members[name] = manifest.to_text(entries).encode()
    return members


def _frames(job: dict[str, Any], result: Path) -> list[rebuild.Rebuild]:
    """The measured frames, where they were made."""
    folder = result / "measured"
    if not (folder / "run.json").is_file():
        return []
    frames = sorted(path.name for path in folder.iterdir() if path.suffix in (".csv", ".json"))
    frames = [name for name in frames if name not in _OWN_RECORDS]
    frames_job = json.loads((folder / "run.json").read_text(encoding="utf-8"))["job"]
    return [rebuild.frames_rebuild(f"{job['result']}/measured", frames_job, job["modules"], frames)]


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file, and the archive must have it; run 'snakemake … -- all' again")
    return path


def _result_files(result: Path, settings: ArtifactConfig) -> Iterator[Path]:
    """Everything that was made of the raw scores, hidden and unfinished files aside."""
    left_out = {*(() if settings.images else layout.IMAGES), *(() if settings.weights else layout.WEIGHTS)}
    for path in sorted(result.rglob("*")):
        parts = path.relative_to(result).parts
        is_shown = parts[0] not in layout.LEFT_OUT and not any(part.startswith(".") for part in parts)
        if path.is_file() and is_shown and not left_out.intersection(parts):
            yield path


def _read_by(result: Path, settings: ArtifactConfig, root: Path) -> list[str]:
    """Folders of runs that the records of the result name besides: measurements that the report knows nothing of."""
    found = set()
    for record in (path for path in _result_files(result, settings) if path.name == "run.json"):
        for name in re.findall(r'"(results/runs/[^"{}]+)"', record.read_text(encoding="utf-8")):
            folder = root / name if (root / name).is_dir() else (root / name).parent
            if (folder / "run.json").is_file():
                found.add(folder.relative_to(root).as_posix())
    return sorted(found)


def _records(folders: list[str], root: Path) -> Iterator[Path]:
    """What every job left beside its weights and images: raw scores, records, histories, image lists."""
    for folder in dict.fromkeys(folders):
        _existing(root / folder / "run.json")
        is_asset = folder.startswith(_ASSETS)  # of which the archive has hashes, and whose licence is its owner's
        for path in sorted((root / folder).iterdir()):
            if path.name in _OWN_RECORDS or (path.suffix in layout.RECORDS and not is_asset):
                yield path


def _large_files(job: dict[str, Any], settings: ArtifactConfig, root: Path) -> Iterator[Path]:
    """Weights of the unlearned models and generated images, where they are asked for."""
    for stage, _, _, folder in job["jobs"]:
        if settings.weights and stage == "unlearn":
            yield _existing(root / folder / "weights.safetensors")
        if settings.images and stage == "sample":
            with _existing(root / folder / "images.csv").open(encoding="utf-8", newline="") as table:
                yield from (_existing(root / row["path"]) for row in csv.DictReader(table))


def _hashed(name: str, asset: dict[str, Any], root: Path) -> dict[str, Any]:
    """An asset with the sha256 of its files: as they were fetched and checked, or of all of them as they lie here."""
    folder = root / asset["folder"]
    if (folder / "run.json").is_file():
        fetched = json.loads((folder / "run.json").read_text(encoding="utf-8")).get("sha256")
        if fetched:
            return {**asset, "sha256": fetched}
    files = sorted([folder] if folder.is_file() else (path for path in folder.rglob("*") if path.is_file()))
    if not files:
        raise ConfigError(f"asset '{name}': nothing lies in {folder}; the archive needs the hashes of its files")
    found = {path.relative_to(folder).as_posix(): path for path in files if path.name not in _OWN_RECORDS}
    hashes = {file: Entry.of(path).sha256 for file, path in found.items()}
    lock = root / HASHES / f"{name}.json"
    locked = {"lock": json.loads(lock.read_text(encoding="utf-8"))} if lock.is_file() else {}
    # Of thousands of images a digest of digests: the sha256 of the same list, as `sha256sum` would print it.
    listed = "".join(f"{sha256}  {file}\n" for file, sha256 in sorted(hashes.items()))
    return {**asset, **locked, "files": len(hashes), "sha256_of_sha256sums": Entry.of(listed.encode()).sha256}


def _provenance(job: dict[str, Any], settings: ArtifactConfig, folders: list[str], root: Path) -> Members:
    """What differs between two runs: logs, the page with its times, this machine and its packages."""
    page = _linked(_existing(root / job["result"] / "report.html").read_bytes(), job["result"])
    found: Members = {
        layout.PAGE: page if settings.images else _PICTURE.sub(_NO_PICTURE, page),
        f"{PROVENANCE}machine.json": _json(machine()),
        f"{PROVENANCE}packages.txt": packages().encode(),
    }
    return found | _logs(job, folders, root)


def _logs(job: dict[str, Any], folders: list[str], root: Path) -> Members:
    """The logs of the result's jobs: a rule names its log after the folder that it writes, or after the experiment."""
    runs = {PurePosixPath(folder).parts[3] for folder in folders if folder.startswith("results/runs/")}
    others = {PurePosixPath(folder).name for folder in folders if not folder.startswith("results/runs/")}
    named = runs | others | {job["name"]}
    logs = root / "logs"
    return {
        f"{PROVENANCE}logs/{path.relative_to(logs).as_posix()}": path
        for path in sorted(logs.rglob("*.log"))
        if path.relative_to(logs).parts[0] != "artifact"
        and named & {path.parent.name, path.stem, path.name.split(".")[0]}
    }


def _linked(page: bytes, result: str) -> bytes:
    """The page with its links to files beside it leading there from ``provenance/``."""

    def moved(match: re.Match[bytes]) -> bytes:
        path = posixpath.normpath(posixpath.join(result, match[2].decode()))
        return match[1] + f"../{path}".encode()

    return _LINK.sub(moved, page)


def _json(values: Any) -> bytes:
    return (json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
