"""Where things lie in the archive."""

from __future__ import annotations

from pathlib import PurePosixPath

from resalign.artifact.manifest import PROVENANCE

TARGET = "TARGET"  # stands in a command for what is to be made
SOURCE = "source"  # the tracked files at their revision
PATCH = "local/changes.patch"  # what leads from there to the files that ran; absent where nothing does
UNTRACKED = "local/untracked"
ASSETS = "assets.json"
REBUILD = "rebuild.json"
README = "README.md"
CRATE = "ro-crate-metadata.json"
TIMES = f"{PROVENANCE}times.csv"
PAGE = f"{PROVENANCE}report.html"

# What a stage leaves beside its weights and images.
RECORDS = (".json", ".csv", ".parquet")
# Files of a result that hold times, or are made of files that do: two runs of one commit differ in them.
HOLDS_TIMES = ("timing.json", "study/manifest.json", "study/study.md", "study/selection.md")
# The page is stored elsewhere, without its pictures; the summary of times is written anew whenever Snakemake ends, from
# the records that the archive has; and an archive holds no archive.
LEFT_OUT = ("report.html", "efficiency.csv", "artifact")
# Parts of paths below a result: generated images as they are, and exported models.
IMAGES = ("images", "label.html")
WEIGHTS = ("export",)


def config_name(name: str) -> str:
    """The resolved configuration of an experiment."""
    return f"config/{name}.yaml"


def place(path: str) -> str:
    """Where a file of the results goes: below ``provenance/`` if it holds times."""
    pure = PurePosixPath(path)
    holds_times = any(pure.match(pattern) for pattern in HOLDS_TIMES)
    return f"{PROVENANCE}{path}" if holds_times else path


def command(template: str, result: str, path: str) -> str:
    """The command that makes a file of the result.

    Args:
        template: A command with :data:`TARGET` where its target goes.
        result: Folder of the result.
        path: Of the file.
    """
    below = PurePosixPath(path).relative_to(result).parts
    # What the report writes is more than its rule declares; a whole folder of other rules is asked for by their target.
    named = {"tables": "all", "figures": "all", "audit": "audit", "study": "study", "second-order": "second_order"}
    return template.replace(TARGET, named.get(below[0], path if len(below) > 1 else _TOP.get(below[0], "all")))


_TOP = {"bars.json": "digits_bars"}
