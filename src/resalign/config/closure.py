"""The code that a stage runs: every module of this package that it imports, function bodies included.

Imports for type checkers do not count: a job's module names the plan's class there, and a stage does not depend on how
its job was planned.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parents[1]
# Hashes of closures, by which the workflow sees that code has changed: beside Snakemake's notes, and not in results,
# since what is copied elsewhere is held to the code there.
CODE = Path(".snakemake/code")


def import_closure(*starts: str | Path) -> list[Path]:
    """Files that the given modules or scripts import, directly or not, themselves included.

    Args:
        starts: Dotted module names (``resalign.unlearning.esd``) or paths of scripts.

    Returns:
        Paths relative to the repository's root, sorted.
    """
    todo: list[Path] = []
    for start in starts:
        is_module = isinstance(start, str) and "/" not in start
        todo += [_file_of(str(start)), *_files_on_the_way(str(start))] if is_module else [ROOT / start]
    seen: set[Path] = set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        todo += _imported_files(path)
    return sorted(path.relative_to(ROOT) for path in seen)


def source_hash(files: Iterable[Path]) -> str:
    """sha256 over names and contents of files relative to the repository's root."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path}\0".encode() + (ROOT / path).read_bytes() + b"\0")
    return digest.hexdigest()


@functools.cache
def _imported_files(path: Path) -> tuple[Path, ...]:
    """Files of this package that one file imports, at its top or in function bodies."""
    found = set()
    for node in _statements(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)).body):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] == "resalign":
                found.update(_files_on_the_way(name))
    return tuple(found)


def _statements(body: Iterable[Any]) -> Iterator[Any]:
    """Statements at every depth, but for those that type checkers alone read; expressions hold none, and take long."""
    for node in body:
        yield node
        unread = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for part in ("orelse",) if unread else ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from _statements(getattr(node, part, ()))


@functools.cache
def _files_on_the_way(name: str) -> list[Path]:
    """The module's file and the ``__init__`` files of its packages; only the latter if the name is no module."""
    parts = name.split(".")
    candidates = [_candidate(parts[:length]) for length in range(1, len(parts) + 1)]
    return [path for path in candidates if path is not None]


def _candidate(parts: list[str]) -> Path | None:
    base = PACKAGE.joinpath(*parts[1:])
    for path in (base.with_suffix(".py") if len(parts) > 1 else base / "__init__.py", base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _file_of(module: str) -> Path:
    path = _candidate(module.split("."))
    if path is None:
        raise FileNotFoundError(f"no module {module} below {PACKAGE}")
    return path
