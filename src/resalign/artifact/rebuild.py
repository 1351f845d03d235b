"""Tables and figures made again from raw scores, by the code and the job that the archive brings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from resalign.config.shape import ArtifactConfig

MAX_SAID_CHARACTERS = 2000  # of what a failed script said, from its end
HELD_OUT = "inputs/held-out"  # the held-out sets' tables, of which the report counts the rows
MEASURED = ("values.csv", "per_run.csv", "variants.json")  # of an ablation
Job = dict[str, Any]


@dataclass(frozen=True)
class Rebuild:
    """A stage that makes files of the archive again.

    Attributes:
        script: Relative to the source's root.
        job: What it is told.
        arguments: The rest of its command line, but for the output.
        folder: Where its files lie in the archive.
        file: The one file below ``folder`` that it writes; empty for a stage that is told the folder.
        compared: Files and folders below ``folder`` that it makes anew and that must be the same.
    """

    script: str
    job: dict[str, Any]
    arguments: list[str]
    folder: str
    file: str = ""
    compared: list[str] = field(default_factory=list)


def held_out_names(jobs: Iterable[Job]) -> dict[str, str]:
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


def report_rebuild(
    folder: str, job: Job, modules: list[str], held_out: dict[str, str], *, with_images: bool
) -> Rebuild:
    """The report's, with every path inside the archive.

    Args:
        folder: Of the result.
        job: As the report's record has it.
        modules: Of the metrics.
        held_out: From :func:`held_out_names`.
        with_images: Whether the archive has the images; if not, the sample grid cannot be drawn again.
    """
    packed = _inside(job, held_out)
    if not with_images:
        packed["gallery"] = None
    compared = ["tables", "figures", "attacks.md"]
    return Rebuild("scripts/report.py", packed, ["--modules", *modules], folder, "", compared)


def frames_rebuild(folder: str, job: Job, modules: list[str], held_out: dict[str, str], frames: list[str]) -> Rebuild:
    """That of the measured frames, which exhibits are made from.

    Args:
        folder: Of the frames.
        job: As their record has it.
        modules: Of the metrics.
        held_out: From :func:`held_out_names`.
        frames: Names of their files.
    """
    return Rebuild("scripts/measure.py", _inside(job, held_out), ["--modules", *modules], folder, "", frames)


def ablation_rebuild(folder: str, job: Job, modules: list[str], held_out: dict[str, str]) -> Rebuild:
    """That of an ablation's measured values, from the raw scores of its variants' runs.

    Args:
        folder: Of the values.
        job: As their record has it.
        modules: Of the metrics.
        held_out: From :func:`held_out_names`.
    """
    variants = [{**variant, "measured": _inside(variant["measured"], held_out)} for variant in job["variants"]]
    arguments = ["--modules", *modules]
    return Rebuild("scripts/ablation.py", {**job, "variants": variants}, arguments, folder, "", list(MEASURED))


def regained_rebuild(folder: str, job: Job, modules: list[str], held_out: dict[str, str]) -> Rebuild:
    """That of what fine-tuning brings back beside the sharpness of what it started from.

    Args:
        folder: Of the table.
        job: As its record has it.
        modules: Of the metrics.
        held_out: From :func:`held_out_names`.
    """
    arguments = ["--modules", *modules]
    return Rebuild("scripts/theory_regained.py", _inside(job, held_out), arguments, folder, "", ["regained.csv"])


def linear_model_rebuild(folder: str, job: Job) -> Rebuild:
    """That of the linear model, from its settings alone."""
    return Rebuild("scripts/linear_model.py", job, [], folder, "", ["linear_model.csv"])


def theory_rebuild(script: str, file: str, job: Job) -> Rebuild:
    """That of one file of the measured theory, from the tables that were measured of each model's weights."""
    folder, _, name = file.rpartition("/")
    return Rebuild(f"scripts/{script}.py", job, [], folder, "", [name])


def exhibit_rebuild(exhibit: str, file: str, job: Job) -> Rebuild:
    """That of one file of one exhibit, from the frames that its job names.

    Args:
        exhibit: Its name.
        file: Where it lies.
        job: What its script is told.
    """
    folder, _, name = file.rpartition("/")
    return Rebuild("scripts/exhibit.py", job, ["--exhibit", exhibit], folder, name, [name])


def _inside(job: Job, held_out: dict[str, str]) -> Job:
    """A job whose held-out tables, which may lie anywhere, are those of the archive."""
    return {**job, "heldout": {label: held_out[table] for label, table in job["heldout"].items()}}


def is_made_again(path: str, rebuilds: list[Rebuild]) -> bool:
    """Whether one of the stages makes a file of the archive again."""
    for rebuild in rebuilds:
        name = path.removeprefix(f"{rebuild.folder}/")
        is_compared = any(name == part or name.startswith(f"{part}/") for part in rebuild.compared)
        if name != path and is_compared:
            return True
    return False


def to_text(rebuilds: list[Rebuild], settings: ArtifactConfig) -> str:
    """As JSON, with the settings that hold the tolerances."""
    values = {"artifact": settings.model_dump(mode="json"), "rebuilds": [asdict(rebuild) for rebuild in rebuilds]}
    return json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def from_text(text: str) -> tuple[list[Rebuild], ArtifactConfig]:
    """The inverse of :func:`to_text`."""
    values = json.loads(text)
    settings = ArtifactConfig.parse(values["artifact"], where="rebuild.json: artifact")
    return [Rebuild(**entry) for entry in values["rebuilds"]], settings


def run(rebuild: Rebuild, root: Path, output: Path, environment: Mapping[str, str] = os.environ) -> str | None:
    """Runs a stage's script in an unpacked archive, without network.

    Args:
        rebuild: What to run.
        root: The unpacked source, with results and inputs where the job says.
        output: Where to write.
        environment: To run it in; a stage server's, say.

    Returns:
        None if it ended well, else the end of what it said.
    """
    output.mkdir(parents=True, exist_ok=True)
    # By standard input: Linux has a limit of 128 KiB for one argument of a command, execve(2).
    command = [sys.executable, rebuild.script, "--job", "-", *rebuild.arguments, "--output", str(output / rebuild.file)]
    ours = {"PYTHONPATH": str(root / "src"), "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    environment = {**environment, **ours}
    job = json.dumps(rebuild.job, sort_keys=True)
    finished = subprocess.run(command, cwd=root, env=environment, input=job, capture_output=True, text=True)
    return None if finished.returncode == 0 else finished.stderr.strip()[-MAX_SAID_CHARACTERS:]
