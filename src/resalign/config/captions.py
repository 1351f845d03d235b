"""Tables of captions, by which folders of images are known, as Hugging Face's ``imagefolder`` names them."""

from __future__ import annotations

import functools
from pathlib import Path

CAPTION_TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


@functools.cache
def caption_tables(folder: str) -> tuple[str, ...]:
    """Those anywhere in a folder of the user's own; looked for once, as it may hold many images."""
    return tuple(str(path) for path in Path(folder).rglob("metadata.*") if path.name in CAPTION_TABLES)
