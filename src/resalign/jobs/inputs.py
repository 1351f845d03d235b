"""Files that a job reads: the code that it runs, and the files by whose presence an asset counts as complete."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from pydantic_core import PydanticSerializationUnexpectedValue, core_schema

from resalign.config.assets import WEIGHT_SUFFIXES
from resalign.config.captions import caption_tables
from resalign.config.closure import import_closure
from resalign.config.plan import Plan
from resalign.config.references import is_plain, plain_path

# Files that make up a user's own folder: tables of captions, weights, settings. Images count by their table.
MAKES_A_FOLDER = (*WEIGHT_SUFFIXES, ".json", ".jsonl", ".csv", ".onnx", ".onnx_data", ".data")


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
        return cls(plan.folder(reference), completion_files(plan, [reference]))

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


def code(script: str, *modules: str) -> list[str]:
    """Code inputs of a stage: its script and every module of the package that it or its members import."""
    return [str(path) for path in import_closure(f"scripts/{script}.py", *modules)]


def completion_files(plan: Plan, references: Iterable[str]) -> list[str]:
    """Files whose presence marks assets as complete; for a user's own: the files that are watched for changes.

    Args:
        plan: The experiment's.
        references: ``asset`` or ``asset/folder``, each.
    """
    found: set[str] = set()
    for reference in references:
        asset = plan.assets[plan.asset_of(reference)]
        if asset.origin != "path":
            found.add(f"{asset.folder}/run.json")
            continue
        own = Path(plain_path(plan.folder(reference)))
        is_pipeline = any((own / name).exists() for name in ("model_index.json", "unet", "transformer", "text_encoder"))
        inside = [own, *own.glob("*"), *(own.glob("*/*") if is_pipeline else ())]
        found |= {str(p) for p in inside if (p == own or p.suffix in MAKES_A_FOLDER) and p.is_file()}
        found |= set(caption_tables(str(own)))
    return sorted(filter(is_plain, found))
