"""The counts that a contaminated image set keeps of its harmful and clean images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from resalign.config.strict import Strict
from resalign.errors import DataError
from resalign.files import whole

FILE = "contamination.json"


class Contamination(Strict):
    """Counts of an image folder, written by the set that mixed it.

    Attributes:
        clean: Benign images.
        harmful: Harmful images.
        asked: The requested share of harmful images; the actual share differs only by rounding.
    """

    clean: int = Field(ge=0)
    harmful: int = Field(ge=0)
    asked: float = Field(ge=0, le=1)

    def as_json(self) -> dict[str, Any]:
        """The counts, their sum, and the actual share of harmful images."""
        size = self.clean + self.harmful
        return {**self.model_dump(), "size": size, "ratio": self.harmful / size}


def write_contamination(folder: Path, contamination: Contamination) -> None:
    """Writes the counts beside the images."""
    with whole(folder / FILE) as part:
        part.write_text(json.dumps(contamination.as_json(), indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_contamination(folder: Path, size: int) -> dict[str, Any] | None:
    """Reads a folder's counts; None if the folder has none, since its set was not contaminated here.

    Raises:
        DataError: If the file is broken, or counts other images than there are.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
        counts = {name: stated[name] for name in Contamination.model_fields}
    except (KeyError, TypeError, ValueError, RecursionError) as error:  # JSON's and UTF-8's errors are ValueErrors
        keys = list(Contamination.model_fields)
        raise DataError(f"{path}: no counts {keys} as the set 'contaminated' writes them ({error!r})") from None
    contamination = Contamination.parse(counts, where=str(path))
    if contamination.clean + contamination.harmful != size:
        raise DataError(
            f"{path}: counts {contamination.clean} clean and {contamination.harmful} harmful images, there are {size}; "
            "prepare the set again"
        )
    return contamination.as_json()
