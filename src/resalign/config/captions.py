"""Tables of captions, by which folders of images are known, as Hugging Face's ``imagefolder`` names them."""

from __future__ import annotations

import functools
from pathlib import Path

from resalign.config.plan import Plan

CAPTION_TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


@functools.cache
def caption_tables(folder: str) -> tuple[str, ...]:
    """Those anywhere in a folder of the user's own; looked for once, as it may hold many images."""
    return tuple(str(path) for path in Path(folder).rglob("metadata.*") if path.name in CAPTION_TABLES)


def captions_of(plan: Plan, reference: str) -> str:
    """The table by which a job is told a folder of images.

    In a folder of the user's own it may be of another kind than CSV, or tables may lie in folders inside it alone: then
    no file has the name that is returned.
    """
    tables = [f"{plan.folder(reference)}/{name}" for name in CAPTION_TABLES]
    is_own = plan.assets[plan.asset_of(reference)].origin == "path"
    return next((table for table in tables if is_own and Path(table).is_file()), tables[0])
