"""Files that a job reads: its inputs, as typed paths, and its code."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic_core import PydanticSerializationUnexpectedValue, core_schema

from resalign.config.closure import CODE, ROOT, import_closure
from resalign.files import whole
from resalign.hashes import file_hash

if TYPE_CHECKING:
    from resalign.config.plan import Plan


class Input(str):
    """A path that a job reads, as text.

    Attributes:
        files: Files by which the workflow sees that the path is complete, or has changed; empty in a job that was read
            back from its text, as only the workflow asks for them.
    """

    files: tuple[str, ...]

    def __new__(cls, path: str, files: Iterable[str] = ()) -> Self:
        """A path with the files that the workflow is to watch."""
        made = super().__new__(cls, path)
        made.files = tuple(files)
        return made

    @classmethod
    def file(cls, path: str) -> Self:
        """A file that another job writes, or that is watched itself."""
        return cls(path, [path])

    @classmethod
    def asset(cls, plan: Plan, reference: str) -> Self:
        """The path of ``asset`` or ``asset/folder``."""
        return cls(plan.folder(reference), plan.completion_files(reference))

    @classmethod
    def captions(cls, plan: Plan, reference: str) -> Self:
        """The table of captions of an image folder, ``asset/folder``."""
        return cls(plan.captions(reference), plan.completion_files(reference))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Any text is taken, and an input keeps its files."""
        return core_schema.no_info_plain_validator_function(
            cls._validated, serialization=core_schema.plain_serializer_function_ser_schema(cls._plain)
        )

    @classmethod
    def _validated(cls, path: object) -> Self:
        if isinstance(path, cls):
            return path
        if isinstance(path, str):
            return cls(path)
        raise ValueError("should be a path")

    @staticmethod
    def _plain(path: object) -> str:
        if not isinstance(path, Input):  # where a field may hold something else, its own serializer is tried next
            raise PydanticSerializationUnexpectedValue("no path")
        return str(path)


def code(script: str, *modules: str) -> str:
    """The code input of a stage: its script and every module of the package that it or its members import."""
    return _code_in(Path.cwd(), f"scripts/{script}.py", *modules)


@functools.cache
def _code_in(_folder: Path, *starts: str) -> str:
    return watched(import_closure(*starts))


def watched(files: Iterable[str | Path]) -> str:
    """A file with the hashes of others, rewritten where one has changed: one input of thousands of jobs, for dozens.

    Snakemake compares its content as well as its time, so that a change that is taken back makes nothing again. At
    first it is as old as the newest of the others. It has a folder of its own, since Snakemake lists a folder once, and
    takes what is written there later for missing.
    """
    names = sorted(map(str, files))
    text = "".join(f"{file_hash(ROOT / name)}  {name}\n" for name in names)
    path = CODE / hashlib.sha256(" ".join(names).encode()).hexdigest()[:12] / "code.sha256"
    is_there = path.is_file()
    if not is_there or path.read_text(encoding="utf-8") != text:
        with whole(path) as part:
            part.write_text(text, encoding="utf-8")
            if not is_there:
                newest = max((ROOT / name).stat().st_mtime_ns for name in names)
                os.utime(part, ns=(newest, newest))
    return str(path)
