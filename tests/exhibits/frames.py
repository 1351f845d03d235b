"""Measured frames of the made-up experiment, as the rule measure leaves them; an ablation and slices beside them."""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from resalign.analysis.frames import long_table, per_run_table, write_csv, write_exact_csv
from resalign.analysis.measured import names_of
from resalign.analysis.measurements import NOT_ATTACKED, Measurements
from resalign.analysis.thresholds import COLUMNS
from resalign.exhibits._inputs import ExhibitInputs
from resalign.jobs.exhibit import Listed, Words
from resalign.jobs.series import SeriesWords
from tests.analysis.experiment import METRICS, SETTINGS, make_gallery, make_swept

METHODS = {"base": "base", "graddiff": "graddiff", "esd": "esd", "resalign": "resalign"}


def write_frames(folder: Path, measurements: Measurements | None = None) -> dict[str, Path]:
    """Writes every frame that an exhibit can read; paths by name."""
    found = measurements or make_swept()
    values = long_table(found, SETTINGS)
    images = folder / "images"
    images.mkdir()
    frames = {
        "values": values,
        "per_run": per_run_table(found, SETTINGS),
        "thresholds": thresholds(values),
        "samples": make_gallery(images).assign(prompt_set=METRICS["clip_score"].prompt_set),
        "slices": slices(found.models),
        "images": found.images,
        "sets": found.runs,
    }
    paths = {name: folder / f"{name}.csv" for name in frames}
    for name, frame in frames.items():
        write_exact_csv(frame, paths[name])
    write_csv(variants(values), folder / "gamma" / "values.csv")
    digits = {name: info.decimals for name, info in found.metrics.items()}
    (folder / "names.json").write_text(json.dumps({**names_of(found, METHODS), "exhibit_decimals": digits}))
    return {**paths, "ablation": folder / "gamma" / "values.csv", "names": folder / "names.json"}


AXES = {"gamma": "γ", "rates": "learning rate", "contamination": "harmful images in per cent"}


def inputs_of(
    paths: Mapping[str, Path], *, another_world: str = "made-up numbers", **series: SeriesWords
) -> ExhibitInputs:
    plain = {name: SeriesWords(axis=axis, methods=("full",)) for name, axis in AXES.items()}
    words = Words(
        another_world=another_world,
        series={**plain, **series},
        metric_modules={"clip_t": "clip_score", "dino": "dino"},
        plan=(Listed(exhibit="table1", title="A table", files="table1.csv", left_out=""),),
    )
    return ExhibitInputs(settings=SETTINGS, files=paths, words=words)


def thresholds(values: pd.DataFrame) -> pd.DataFrame:
    """Every safety rate falls with the threshold, the more so the larger it is: models' order changes nowhere."""
    safety = values[values["metric"].isin(["ip", "us"])]
    parts = []
    for threshold in (0.25, 0.5, 0.75):
        factor = 1.5 - threshold
        scaled = {name: (safety[name] * factor).clip(upper=1.0) for name in ("mean", "low", "high")}
        parts.append(safety.assign(**scaled, threshold=threshold))
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def variants(values: pd.DataFrame) -> pd.DataFrame:
    """ResAlign's values at two settings: everything it shows twice as often at the second one."""
    own = values[values["model"] == "resalign"]
    doubled = own.assign(**{name: own[name] * 2 for name in ("mean", "low", "high")})
    return pd.concat([own.assign(variant="0.01"), doubled.assign(variant="1")])[["variant", *values.columns]]


def slices(models: tuple[str, ...]) -> pd.DataFrame:
    rows = [
        (model, "pages", seed, position, "harmful_loss_change", 0.1 * (seed + 1) + 0.2 * position, 0.01)
        for model in models
        for seed in (0, 1)
        for position in (0.0, 1.0)
    ]
    return pd.DataFrame(rows, columns=["model", "direction", "seed", "position", "quantity", "mean", "standard_error"])


def is_before(frame: pd.DataFrame) -> pd.Series:
    return frame["attack"] == NOT_ATTACKED
