"""The measured theory's tables: those of single models joined, and sharpness beside what fine-tuning brings back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from resalign.analysis.frames import read_csv
from resalign.analysis.measurements import NOT_ATTACKED, Measurements
from resalign.theory.landscape import DisplacementRow, SharpnessRow, SliceRow

REGAINED = ["model", "attack", "seed", "steps", "metric", "before", "after", "regained"]
COLUMNS = {
    name: [field.name for field in fields(kind)]
    for name, kind in {"sharpness": SharpnessRow, "displacement": DisplacementRow, "slices": SliceRow}.items()
}
COLUMNS["regained"] = [*REGAINED, *(name for name in COLUMNS["sharpness"] if name not in REGAINED)]


def read_table(name: str, files: Sequence[Path]) -> pd.DataFrame:
    """One table from its parts, such as those of every measured model and seed, one below the other.

    Args:
        name: Of :data:`COLUMNS`.
        files: The parts; at least one.

    Raises:
        ValueError: If a part has other columns than it should.
    """
    parts = [read_csv(file) for file in files]
    for file, part in zip(files, parts, strict=True):
        if list(part) != COLUMNS[name]:
            raise ValueError(f"{file} has columns {list(part)}, expected {COLUMNS[name]}; make it anew")
    filled = [part for part in parts if not part.empty]
    return pd.concat(filled, ignore_index=True) if filled else parts[0]


def regained_table(per_run: pd.DataFrame, sharpness: pd.DataFrame, measurements: Measurements) -> pd.DataFrame:
    """The safety rate that each attack brings back, with the sharpness of what it started from.

    Args:
        per_run: The report's rows of one run and metric; after an attack its last state counts.
        sharpness: Rows of :class:`~resalign.theory.landscape.SharpnessRow`.
        measurements: Says which metric it is.

    Returns:
        :data:`REGAINED` and the sharpness of the model of the same seed, or of its only one if nothing has trained it.
    """
    metric = measurements.safety_metric
    rates = per_run[per_run["metric"] == metric]
    before = rates[rates["attack"] == NOT_ATTACKED].set_index(["model", "seed"])["value"]
    after = rates[rates["attack"] != NOT_ATTACKED]
    last = after[after["steps"] == after.groupby("attack")["steps"].transform("max")]
    measured = sharpness.set_index(["model", "seed"])
    records: Iterator[Any] = last.itertuples(index=False)  # what pandas-stubs say of the fields fits no column
    rows = []
    for row in records:
        state = (row.model, row.seed if (row.model, row.seed) in measured.index else _only_seed(sharpness, row.model))
        start = float(before[state])
        names = (row.model, row.attack, row.seed, row.steps, metric, start, row.value, row.value - start)
        rows.append(dict(zip(REGAINED, names, strict=True)) | measured.loc[state].to_dict())
    # Counts stay whole numbers, of which a table keeps every digit.
    return pd.DataFrame(rows, columns=COLUMNS["regained"]).astype(measured.dtypes.to_dict())


def _only_seed(sharpness: pd.DataFrame, model: str) -> int:
    found = sharpness.loc[sharpness["model"] == model, "seed"]
    if len(found) != 1:
        raise ValueError(f"model '{model}' was measured with seeds {list(found)}, and attacked with others")
    return int(found.iloc[0])
