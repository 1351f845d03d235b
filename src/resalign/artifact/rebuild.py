"""Tables and figures made again from raw scores, by the code and the job that the archive brings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from resalign.config.shape import ArtifactConfig

MAX_SAID_CHARACTERS = 2000  # of what a failed script said, from its end
NO_IMAGES = "it is drawn of the images, which the archive leaves out"
HELD_OUT = "inputs/held-out"  # the held-out sets' tables, of which the report counts the rows


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
        left_out: Those of them that it does not make, and why.
    """

    script: str
    job: dict[str, Any]
    arguments: list[str]
    folder: str
    file: str = ""
    compared: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def report_rebuild(folder: str, job: dict[str, Any], modules: list[str], *, with_images: bool) -> Rebuild:
    """The report's, with every path inside the archive.

    Args:
        folder: Of the result.
        job: As the report's record has it.
        modules: Of the metrics.
        with_images: Whether the archive has the images; if not, the sample grid cannot be drawn again.
    """
    packed, left_out = _inside(job), {}
    if not with_images:
        packed["gallery"] = None
        left_out = {"figures/samples.png": NO_IMAGES}
    arguments = ["--modules", *modules]
    return Rebuild("scripts/report.py", packed, arguments, folder, "", ["tables", "figures", "attacks.md"], left_out)


def frames_rebuild(folder: str, job: dict[str, Any], modules: list[str], frames: list[str]) -> Rebuild:
    """That of the measured frames, which exhibits are made from.

    Args:
        folder: Of the frames.
        job: As their record has it.
        modules: Of the metrics.
        frames: Names of their files.
    """
    return Rebuild("scripts/measure.py", _inside(job), ["--modules", *modules], folder, "", frames)


def exhibit_rebuild(exhibit: str, file: str, job: dict[str, Any], *, with_images: bool) -> Rebuild:
    """That of one file of one exhibit, from the frames that its job names.

    Args:
        exhibit: Its name.
        file: Where it lies.
        job: What its script is told.
        with_images: Whether the archive has the images.
    """
    folder, _, name = file.rpartition("/")
    left_out = {name: NO_IMAGES} if "samples" in job["files"] and not with_images else {}
    return Rebuild("scripts/exhibit.py", job, ["--exhibit", exhibit], folder, name, [name], left_out)


def _inside(job: dict[str, Any]) -> dict[str, Any]:
    """A job whose held-out tables, which may lie anywhere, are those of the archive."""
    return {**job, "heldout": {label: f"{HELD_OUT}/{label}.csv" for label in job["heldout"]}}


def is_made_again(path: str, rebuilds: list[Rebuild]) -> bool:
    """Whether one of the stages makes a file of the archive again."""
    for rebuild in rebuilds:
        name = path.removeprefix(f"{rebuild.folder}/")
        is_compared = any(name == part or name.startswith(f"{part}/") for part in rebuild.compared)
        if name != path and is_compared and name not in rebuild.left_out:
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


def run(rebuild: Rebuild, root: Path, output: Path) -> str | None:
    """Runs a stage's script in an unpacked archive, without network.

    Args:
        rebuild: What to run.
        root: The unpacked source, with results and inputs where the job says.
        output: Where to write.

    Returns:
        None if it ended well, else the end of what it said.
    """
    job = json.dumps(rebuild.job, sort_keys=True)
    command = [sys.executable, rebuild.script, "--job", job, *rebuild.arguments, "--output", str(output / rebuild.file)]
    ours = {"PYTHONPATH": str(root / "src"), "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    environment = {**os.environ, **ours}
    finished = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    return None if finished.returncode == 0 else finished.stderr.strip()[-MAX_SAID_CHARACTERS:]
