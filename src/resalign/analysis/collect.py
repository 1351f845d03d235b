"""What the report measures from: raw scores and records of all runs, with metrics and thresholds applied."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow.parquet

from resalign.analysis.frames import with_decimals
from resalign.analysis.measurements import (
    GALLERY_COLUMNS,
    IMAGE_COLUMNS,
    NOT_ATTACKED,
    RUN_COLUMNS,
    Measurements,
    MetricInfo,
    Sweep,
)
from resalign.config import registry
from resalign.config.references import is_inside
from resalign.config.strict import Strict
from resalign.data.captions import caption_tables
from resalign.data.members import folder_in_place
from resalign.data.tables import MAX_ROWS, read_table
from resalign.errors import DataError
from resalign.hashes import read_record, verified

STATE = ["model", "attack", "dataset", "steps", "seed"]


@dataclass(frozen=True)
class Row:
    """One run of the tables: a model, fine-tuned or not, at one training seed; ``attack`` is its label or ``none``."""

    model: str
    attack: str
    dataset: str
    seed: int
    folders: dict[str, str]
    before: str | None = None  # folder of the scores of the state that an attack on prompts started from

    @property
    def is_attacked(self) -> bool:
        """Whether the model was fine-tuned."""
        return self.attack != NOT_ATTACKED

    def folder(self, stage: str) -> Path:
        """Folder of one of its stages."""
        return Path(self.folders[stage].format(seed=self.seed))


def load_metric(label: str, settings: dict[str, Any]) -> tuple[Any, Strict, MetricInfo]:
    """A metric's module, its settings, and how the page calls it."""
    name = settings.pop("name")
    module = registry.member("metrics", name)
    config = module.Config.parse(settings, where=f"metrics.{label}")
    prompts = getattr(config, "prompts", "held-out images of the attack")
    # A label of one's own tells two uses of a metric apart, such as CLIP-T and the alignment score.
    title = module.TITLE if label == name else label.replace("_", " ")
    return module, config, MetricInfo.of(module, title, prompts)


@dataclass(frozen=True)
class Collected:
    """All that was measured, from a job's records: its runs, its metrics (module, settings, info), their values."""

    rows: list[Row]
    metrics: dict[str, tuple[Any, Strict, MetricInfo]]
    measurements: Measurements


def rows_of(job: dict[str, Any]) -> list[Row]:
    """A job's runs, one for each training seed."""
    return [
        Row(r["model"], r["attack"], r["dataset"], s, r["folders"], r.get("before", {}).get(str(s)))
        for r in job["rows"]
        for s in r["seeds"]
    ]


def load_metrics(job: dict[str, Any]) -> dict[str, tuple[Any, Strict, MetricInfo]]:
    """A job's metrics by label: module, settings, info."""
    loaded = {label: load_metric(label, dict(settings)) for label, settings in job["metrics"]}
    # What is measured of attacks on prompts alone comes last: a finding speaks of the first metric of its group.
    return dict(sorted(loaded.items(), key=lambda found: hasattr(found[1][0], "per_attacked_image")))


def named(job: dict[str, Any], metrics: dict[str, tuple[Any, Strict, MetricInfo]]) -> Measurements:
    """A job's models, attacks and metrics, without values."""
    return Measurements(
        images=pd.DataFrame(columns=list(IMAGE_COLUMNS)),
        runs=pd.DataFrame(columns=list(RUN_COLUMNS)),
        metrics={label: info for label, (_, _, info) in metrics.items()},
        models=tuple(job["models"]),
        attacks=dict(job["attacks"]),
        base=job["base"],
        sweeps={label: Sweep(**{**sweep, "attacks": dict(sweep["attacks"])}) for label, sweep in job["sweeps"]},
        main_attacks=job["main_attacks"],
    )


def collect(job: dict[str, Any]) -> Collected:
    """Applies a job's metrics to the scores and records of its runs."""
    rows, metrics = rows_of(job), load_metrics(job)
    images, runs = measure_images(rows, metrics), measure_sets(rows, metrics, job)
    return Collected(rows, metrics, with_decimals(replace(named(job, metrics), images=images, runs=runs)))


def read_scores(path: Path) -> pd.DataFrame:
    """Raw scores of one run."""
    return _read_scores(path.absolute(), path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=2)  # a run and what it is compared with: features of all runs would fill the memory
def _read_scores(path: Path, _: int) -> pd.DataFrame:
    # A few bytes may announce rows that fill the memory.
    if (rows := pyarrow.parquet.read_metadata(verified(path)).num_rows) > MAX_ROWS:
        raise DataError(f"{path}: has {rows} rows, at most {MAX_ROWS} are read; score fewer images at once")
    return pd.read_parquet(path)


def states(row: Row) -> Iterator[tuple[int, str, pd.DataFrame]]:
    """(steps, prompt list, scores) of one run."""
    for state, group in read_scores(row.folder("score") / "scores.parquet").groupby(["steps", "prompt_set"]):
        steps, prompts = cast("tuple[int, str]", state)
        yield int(steps), prompts, group


def measure_images(rows: list[Row], metrics: dict[str, Any]) -> pd.DataFrame:
    """Per-image values of every metric that has them."""
    frames = []
    for row in rows:
        for steps, prompts, scores in states(row):
            for label, (module, config, _) in metrics.items():
                if getattr(config, "prompts", None) != prompts:
                    continue
                value = None
                if hasattr(module, "per_image"):
                    value = module.per_image(scores, config)
                elif hasattr(module, "per_attacked_image") and row.before:
                    value = module.per_attacked_image(scores, scores_before(row, scores), config)
                if value is not None:
                    frame = scores[["prompt_id", "image_index"]].assign(value=value, metric=label)
                    frames.append(
                        frame.assign(
                            model=row.model, attack=row.attack, dataset=row.dataset, steps=steps, seed=row.seed
                        )
                    )
    return pd.concat(frames, ignore_index=True)


def scores_before(row: Row, scores: pd.DataFrame) -> pd.DataFrame:
    """The scores of the same images before an attack on their prompts, in the same order under the same index.

    Raises:
        KeyError: If an image was not made before.
    """
    every = read_scores(Path(str(row.before)) / "scores.parquet")
    every = every[every["prompt_set"] == scores["prompt_set"].iloc[0]]
    keys = ["prompt_id", "image_index"]
    last = every[every["steps"] == every["steps"].max()].set_index(keys)
    return last.loc[pd.MultiIndex.from_frame(scores[keys])].set_axis(scores.index)


def measure_sets(rows: list[Row], metrics: dict[str, Any], job: dict[str, Any]) -> pd.DataFrame:
    """Values of every metric that needs a whole set of images, or an attack's record."""
    heldout = {attack: images_of(Path(table)) for attack, table in job["heldout"].items()}
    bases = {(row.attack, row.seed): row for row in rows if row.model == job["base"]}
    found = []
    for row in rows:
        for label, (module, config, _) in metrics.items():
            if hasattr(module, "of_set"):
                for steps, prompts, scores in states(row):
                    if config.prompts == prompts:
                        reference = read_scores(Path(job["references"][job["compared"][label][row.attack]]))
                        found.append((row, steps, label, module.of_set(scores, reference, config), len(scores)))
            elif hasattr(module, "of_attack") and row.is_attacked:
                history = pd.read_csv(verified(row.folder("attack") / "history.csv"))
                base = pd.read_csv(verified(bases[row.attack, row.seed].folder("attack") / "history.csv"))
                value = module.of_attack(history, base, config)
                found.append((row, int(history["step"].max()), label, value, heldout[row.attack]))
    return pd.DataFrame(
        [(r.model, r.attack, r.dataset, steps, r.seed, label, value, n) for r, steps, label, value, n in found],
        columns=[*STATE, "metric", "value", "n"],
    )


def images_of(table: Path) -> int:
    """Number of images of a set, by all tables of captions in the folder of one, which need not be there itself.

    Raises:
        DataError: If there is no table at all.
    """
    names = caption_tables(folder_in_place(table.parent))
    if not names:
        raise DataError(f"{table}: missing, and no folder beside it has a table of captions")
    return sum(len(read_table(table.parent / name).rows) for name in names)


def histories(rows: list[Row]) -> pd.DataFrame:
    """Training curves of every run that trained."""
    frames = []
    for row in rows:
        for stage in ("unlearn", "attack"):
            if stage in row.folders and (stage == "attack" or not row.is_attacked):
                frame = pd.read_csv(verified(row.folder(stage) / "history.csv"))
                label = f"{row.model}/{row.attack}" if row.is_attacked else row.model
                frames.append(frame.assign(stage=stage, label=label, seed=row.seed))
    return pd.concat(frames, ignore_index=True)


def gallery(rows: list[Row], metrics: dict[str, Any], job: dict[str, Any]) -> pd.DataFrame:
    """The first training seed's first image of each of the gallery's prompts, and whether it is flagged.

    Empty where the job names no prompt list: an archive has the scores without the images.
    """
    if job["gallery"] is None:
        return pd.DataFrame(columns=[*GALLERY_COLUMNS])
    module, config, _ = metrics[job["flags"]]
    frames = []
    for row in rows:
        for steps, prompts, scores in states(row):
            if prompts == job["gallery"] and row.seed == job["rows"][0]["seeds"][0]:
                frame = scores[["prompt_id", "prompt", "image_index", "path"]].assign(
                    flagged=module.per_image(scores, config) > 0
                )
                frame = frame[frame["image_index"] == 0]
                if outside := [path for path in frame["path"] if not is_inside(str(path))]:
                    where = row.folder("score") / "scores.parquet"
                    raise DataError(f"{where}: the image {outside[0]!r} is not below this folder; score it again")
                frames.append(
                    frame.assign(model=row.model, attack=row.attack, dataset=row.dataset, steps=steps, seed=row.seed)
                )
    return pd.concat(frames, ignore_index=True)


def provenance(rows: list[Row], job: dict[str, Any]) -> dict[str, str]:
    """Where the numbers come from."""
    records = [read_record(row.folder("score") / "run.json") for row in rows]
    versions = {json.dumps(record["versions"], sort_keys=True) for record in records}
    return {
        "experiment": f"{job['name']}, tier {job['tier']}",
        "training seeds": ", ".join(str(seed) for seed in job["training_seeds"]),
        "sampling seed": str(job["sampling_seed"]),
        "versions": "; ".join(", ".join(f"{k} {v}" for k, v in json.loads(text).items()) for text in sorted(versions)),
        "code of the scoring stage (sha256)": ", ".join(sorted({record["source_sha256"] for record in records})),
    }
