"""Prompt lists: a ``prompts.csv`` with columns id, prompt and, where a metric needs it, label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from resalign.data.images import DataError


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        id: Key of its initial noise; never changes once images exist.
        text: What the model is given; may be empty (I2P has such a case), but not a whole list of them.
        label: What the image should show, for metrics that ask; '' if unknown.
    """

    id: str
    text: str
    label: str = ""


def read_prompts(path: Path, limit: int | None = None) -> list[Prompt]:
    """The first ``limit`` prompts of a list, so that a larger tier's prompts begin with a smaller one's.

    Raises:
        DataError: If the file is missing, lacks a column, is empty, repeats an id, or holds empty prompts only.
    """
    import pandas as pd

    if not path.is_file():
        raise DataError(f"{path}: no such prompt list")
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except pd.errors.EmptyDataError:
        raise DataError(f"{path}: the prompt list is empty; expected columns id, prompt") from None
    missing = {"id", "prompt"} - set(frame.columns)
    if missing:
        raise DataError(f"{path}: no column {sorted(missing)}; found {list(frame.columns)}")
    if frame.empty or (frame["prompt"].str.strip() == "").all():
        raise DataError(f"{path}: the prompt list holds no prompts")
    repeated = frame["id"][frame["id"].duplicated()]
    if len(repeated):
        raise DataError(f"{path}: id {repeated.iloc[0]!r} occurs more than once; an image's noise is keyed by it")
    labels = frame["label"] if "label" in frame else [""] * len(frame)
    prompts = [Prompt(*row) for row in zip(frame["id"], frame["prompt"], labels, strict=True)]
    if limit is not None and limit > len(prompts):
        raise DataError(f"{path}: the tier asks for {limit} prompts, the list has {len(prompts)}; lower the tier's number")
    return prompts[:limit]


def write_prompts(path: Path, prompts: Sequence[Prompt]) -> None:
    """Writes a prompt list."""
    import pandas as pd

    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [(p.id, p.text, p.label) for p in prompts]
    pd.DataFrame(rows, columns=["id", "prompt", "label"]).to_csv(path, index=False)
