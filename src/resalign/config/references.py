"""How a configuration names what the user has: paths of assets, and references to what lies in an asset."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator

from resalign.config.strict import ConfigError, nearest, shortened

MAX_NAME_BYTES, MAX_PATH_BYTES = 255, 4000  # of Linux's file systems; its paths have 4096 with what is put before

# What is no name: a path that begins at the root, here, above, or at home, and the name of a file.
_LOOKS_LIKE_A_PATH = re.compile(r"[/.~].*|[^/]*\.(csv|jsonl?|txt|parquet|safetensors|ckpt|pt|bin|onnx|zip)")
_NOT_PLAIN = re.compile(r"[{}\x00-\x1f\x7f]")


def own_path(path: str) -> str:
    """A path of the user's own with ``~`` expanded.

    Raises:
        ValueError: If it is empty, names a home that there is not, or is no path for Snakemake.
    """
    expanded = os.path.expanduser(path)
    if not path.strip():
        raise ValueError("the path is empty; '.' is the folder from which you work")
    if expanded.startswith("~"):
        raise ValueError(f"{path!r}: there is no such home folder; write the path in full, or './{path}'")
    return plain_path(expanded)


def plain_path(path: str) -> str:
    """The path itself.

    Raises:
        ConfigError: If it is longer than names of files may be, or has a control character, or a brace: in a rule's
            input Snakemake takes it for a wildcard's, and knows no way to quote it.
    """
    longest = max((len(os.fsencode(part)) for part in path.split("/")), default=0)
    if longest > MAX_NAME_BYTES or len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise ConfigError(
            f"{shortened(path)!r} is longer than a file's name may be ({MAX_NAME_BYTES} bytes between two '/', "
            f"{MAX_PATH_BYTES} in all); make a symbolic link to it and give the link's path"
        )
    if found := _NOT_PLAIN.search(path):
        raise ConfigError(
            f"{path!r} has the character {found[0]!r}, which the workflow takes for part of a pattern; rename it, or "
            "make a symbolic link to it and give the link's path"
        )
    return path


def is_plain(path: str) -> bool:
    """Whether it is a path for Snakemake, see :func:`plain_path`."""
    return not _NOT_PLAIN.search(path)


def is_inside(name: str) -> bool:
    """Whether a name from a configuration, a table or an archive stays below the folder that it is relative to."""
    path = PurePosixPath(name)
    plain = bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    return plain and "\\" not in name and "\0" not in name and path.parts[0][1:2] != ":"


def inside_path(name: str) -> str:
    """The name itself.

    Raises:
        ValueError: If it leads out of the folder that it is relative to.
    """
    if not is_inside(name):
        raise ValueError(f"{name!r} leads out of its folder; give the name of what lies in it, without '..'")
    return name


OwnPath = Annotated[str, AfterValidator(own_path)]
InsidePath = Annotated[str, AfterValidator(inside_path)]


def split_reference(reference: str) -> tuple[str, str]:
    """Name of the asset and what lies in it: ``a/b/c`` is (a, b/c), and so is ``a//b/./c/``."""
    name, *parts = reference.split("/")
    return name, "/".join(part for part in parts if part not in ("", "."))


def fault_of(key: str, reference: str, known: Collection[str]) -> str | None:
    """The fault of a reference to an asset, with the remedy; None if there is none.

    Args:
        key: Where it stands.
        reference: ``asset`` or ``asset/folder``, as it is written.
        known: The assets' names.
    """
    name, inside = split_reference(reference)
    if name in known:
        try:
            plain_path(inside)
        except ValueError as error:
            return str(error)
        return f"{reference!r} leads out of asset '{name}'; take '..' out of it" if ".." in inside.split("/") else None
    if not reference.strip():
        return "is empty; give the name of an asset, or NAME/what-lies-in-it"
    if not _LOOKS_LIKE_A_PATH.fullmatch(reference) and not os.path.exists(reference):
        return f"no asset named '{name}'{nearest(name, known)}"
    folder, label, named = _as_asset(reference, known)
    lines = _yaml({label: {"path": folder}}), _yaml({key.rpartition(".")[2]: named})
    return (
        f"{reference!r} is a path, and here stands an asset: a folder that has a name, or NAME/file for what lies in "
        f"it. Write below 'assets:' the line `  {lines[0]}`, and here `{lines[1]}`"
    )


def _as_asset(path: str, known: Collection[str]) -> tuple[str, str, str]:
    """The folder that an asset would be of, the asset's name, and what would stand in the path's place."""
    plain = PurePosixPath(path)
    is_file = bool(plain.suffix) and not os.path.isdir(os.path.expanduser(path))
    folder, inside = (str(plain.parent), f"/{plain.name}") if is_file else (path, "")
    words = re.sub(r"[^A-Za-z0-9_-]+", "-", plain.stem if is_file else plain.name).strip("-_")
    # No asset may be called 'train': so a metric calls an attack's images.
    label = words if words and words not in known and words != "train" else f"my-{words or 'data'}"
    return folder, label, f"{label}{inside}"


def _yaml(entry: dict[str, object]) -> str:
    """One entry as a line of YAML."""
    import yaml

    line: str = yaml.safe_dump(entry, default_flow_style=True, width=math.inf, allow_unicode=True)
    return line.strip()[1:-1]
