"""Names and places of the archive's members."""

from __future__ import annotations

from pathlib import PurePosixPath

from resalign.jobs.artifact import TARGET

# The manifests have size and sha256 of every member, each for its own part.
FORMAT = "resalign artifact 1"
PROVENANCE = "provenance/"  # below it lies what differs between two runs, its own manifest included
MANIFESTS = ("manifest.json", f"{PROVENANCE}manifest.json")
SOURCE = "source"  # the tracked files at their revision
PATCH = "local/changes.patch"  # what leads from there to the files that ran; absent where nothing does
UNTRACKED = "local/untracked"
ASSETS = "assets.json"
REBUILD = "rebuild.json"
README = "README.md"
CRATE = "ro-crate-metadata.json"
TIMES = f"{PROVENANCE}times.csv"
PAGE = f"{PROVENANCE}report.html"

TIMING = "timing.json"
# What a stage leaves beside its weights and images.
RECORDS = (".json", ".csv", ".parquet")
SAMPLES = "samples.png"  # among the report's figures: generated images


def covers(manifest: str, member: str) -> bool:
    """Whether a manifest lists a member: each manifest lists its own part, and none lists a manifest."""
    return member not in MANIFESTS and member.startswith(PROVENANCE) == manifest.startswith(PROVENANCE)


def config_name(name: str) -> str:
    """The resolved configuration of an experiment."""
    return f"config/{name}.yaml"


def place(path: str) -> str:
    """Member name of a result's file; files with times are below ``provenance/``."""
    return f"{PROVENANCE}{path}" if PurePosixPath(path).name == TIMING else path


def command(template: str, result: str, path: str) -> str:
    """The command that makes a file of the result.

    Args:
        template: A command with :data:`TARGET` where its target goes.
        result: Folder of the result.
        path: Of the file.
    """
    # Of the report's figures the folder is declared, not each of them.
    is_figure = PurePosixPath(path).is_relative_to(f"{result}/figures")
    return template.replace(TARGET, "all" if is_figure else path)


def is_reports(result: str, path: str) -> bool:
    """Whether a file belongs to the report, whose times are in the result's own folder."""
    below = PurePosixPath(path).relative_to(result).parts
    return len(below) == 1 or below[0] in ("tables", "figures")
