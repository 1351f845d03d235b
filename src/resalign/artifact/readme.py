"""Writes the archive's README: the file, command and tolerance of each table, figure and number."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import jinja2

from resalign.artifact import layout
from resalign.artifact.compare import NUMBER_TOLERANCE, PIXEL_TOLERANCE
from resalign.artifact.layout import PROVENANCE
from resalign.artifact.records import HELD_OUT
from resalign.artifact.source import Source
from resalign.config.shape import ArtifactConfig
from resalign.jobs.artifact import CONFIGURATIONS, PROMPTS, ArtifactJob

_SHOWN = (".csv", ".tex", ".png", ".svg", ".md", ".json", ".html")
_NOT_SHOWN = ("run.json", layout.TIMING)


@dataclass(frozen=True)
class Claim:
    """A file that a reader of the paper would look at.

    Attributes:
        file: Path in the archive; without ``provenance/``, also the path in the results.
        command: The command that makes it.
        tolerance: How closely `make verify` reproduces it, if it does.
    """

    file: str
    command: str
    tolerance: str


def claims(job: ArtifactJob, members: Iterable[str]) -> list[Claim]:
    """Every table, figure and number of the result.

    Args:
        job: The archive's.
        members: Names of its members.
    """
    listed = []
    for name in sorted(members, key=lambda name: name.removeprefix(PROVENANCE)):
        path = PurePosixPath(name.removeprefix(PROVENANCE))
        if path.is_relative_to(job.result) and path.suffix in _SHOWN and path.name not in _NOT_SHOWN:
            command = layout.command(job.command, job.result, str(path))
            tolerance = "by the command alone" if name.startswith(PROVENANCE) else _tolerance(path.suffix)
            listed.append(Claim(name, command, tolerance))
    return listed


def _tolerance(suffix: str) -> str:
    if suffix == ".png":
        return f"bits; else pixels within {PIXEL_TOLERANCE}/255"
    return f"bits; else numbers within {NUMBER_TOLERANCE:g} of themselves"


def times(job: ArtifactJob, claimed: list[Claim], root: Path) -> str:
    """Seconds behind each claim as a table: of the job that wrote it, and of all runs behind the results.

    The cell is empty for a file whose job keeps no record.
    """
    result = PurePosixPath(job.result)
    runs = [*(folder for *_, folder in job.jobs), *job.theory]
    runs += [folder for ablation in job.ablations for folder in ablation.runs]
    behind = sum(_seconds(root / folder) or 0.0 for folder in dict.fromkeys(runs))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("file", "command", "seconds", "seconds_of_all_runs_behind_the_results"))
    for claim in claimed:
        path = PurePosixPath(claim.file.removeprefix(PROVENANCE))
        folders = (
            [result]
            if layout.is_reports(job.result, str(path))
            else [parent for parent in path.parents if parent.is_relative_to(result)][:-1]
        )
        taken = next((seconds for folder in folders if (seconds := _seconds(root / folder)) is not None), None)
        writer.writerow((claim.file, claim.command, "" if taken is None else f"{taken:.1f}", f"{behind:.1f}"))
    return buffer.getvalue()


def _seconds(folder: Path) -> float | None:
    """Seconds of a job from its process's start to its record, over all attempts."""
    timing = folder / layout.TIMING
    if not timing.is_file():
        return None
    values: Mapping[str, float] = json.loads(timing.read_text(encoding="utf-8"))
    return values["seconds"] + values["start_seconds"]


def readme(job: ArtifactJob, source: Source, claimed: list[Claim], settings: ArtifactConfig) -> str:
    """The README as Markdown; it is the same for two runs of one commit."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    template = environment.from_string(Path(__file__).with_name("readme.md.j2").read_text(encoding="utf-8"))
    where = {name.lower(): getattr(layout, name) for name in ("SOURCE", "PATCH", "UNTRACKED", "ASSETS", "REBUILD")}
    where |= {"configurations": CONFIGURATIONS, "prompts": PROMPTS}
    where |= {"times": layout.TIMES, "crate": layout.CRATE, "config": layout.config_name(job.name)}
    return template.render(
        job=job, source=source, claims=claimed, settings=settings, where=where, provenance=PROVENANCE, held_out=HELD_OUT
    )
