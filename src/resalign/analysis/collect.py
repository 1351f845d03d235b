"""Applies metrics and thresholds to the raw scores and records of all runs."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import pyarrow.parquet

from resalign.analysis.frames import with_decimals
from resalign.analysis.measurements import (
    HISTORY_COLUMNS,
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
from resalign.objectives.displacement import EXAMPLES

if TYPE_CHECKING:
    from resalign.jobs.measure import Measurable, MeasureJob, Scored
    from resalign.jobs.prune import PruneJob


@dataclass(frozen=True)
class ScoredRun:
    """One model, fine-tuned or not, at one training seed; ``attack`` is its label or ``none``."""

    model: str
    attack: str
    dataset: str
    seed: int
    folders: Mapping[str, str]
    before: str | None = None  # folder of the scores of the state that an attack on prompts started from

    @property
    def is_attacked(self) -> bool:
        """Whether the model was fine-tuned."""
        return self.attack != NOT_ATTACKED

    @property
    def state(self) -> dict[str, Any]:
        """Columns that name the run, except its steps."""
        return {"model": self.model, "attack": self.attack, "dataset": self.dataset, "seed": self.seed}

    def folder(self, stage: str) -> Path:
        """Folder of one of its stages."""
        return Path(self.folders[stage].format(seed=self.seed))


@dataclass(frozen=True)
class Collected:
    """Every measured value of a job's runs.

    Attributes:
        runs: The runs.
        metrics: Module, settings and meaning of each metric, by label.
        measurements: The values.
    """

    runs: list[ScoredRun]
    metrics: dict[str, tuple[Any, Strict, MetricInfo]]
    measurements: Measurements


def load_metric(label: str, settings: Mapping[str, Any]) -> tuple[Any, Strict, MetricInfo]:
    """A metric's module, its settings, and its meaning for tables and texts."""
    name = settings["name"]
    module = registry.member("metrics", name)
    config = module.Config.parse({k: v for k, v in settings.items() if k != "name"}, where=f"metrics.{label}")
    images = "retained images" if hasattr(module, "of_unlearning") else "held-out images of the attack"
    # A label of one's own distinguishes two uses of a metric, such as CLIP-T and the alignment score.
    title = module.TITLE if label == name else label.replace("_", " ")
    return module, config, MetricInfo.of(module, title, getattr(config, "prompts", images))


def runs_of(scored: Sequence[Scored]) -> list[ScoredRun]:
    """A job's runs, one for each training seed."""
    return [
        ScoredRun(row.model, row.attack, row.dataset, seed, row.folders, row.before.get(str(seed)))
        for row in scored
        for seed in row.seeds
    ]


def collect(job: Measurable) -> Collected:
    """Applies a job's metrics to the scores and records of its runs."""
    runs = runs_of(job.rows)
    loaded = {label: load_metric(label, settings) for label, settings in job.metrics}
    # Metrics of attacks on prompts come last: a finding states the first metric of its group.
    metrics = dict(sorted(loaded.items(), key=lambda entry: hasattr(entry[1][0], "per_attacked_image")))
    measurements = Measurements(
        images=measure_images(runs, metrics),
        runs=measure_sets(runs, metrics, job),
        metrics={label: info for label, (_, _, info) in metrics.items()},
        models=job.models,
        attacks=dict(job.attacks),
        base=job.base,
        titles=job.titles,
        sweeps={label: Sweep(**{**vars(sweep), "attacks": dict(sweep.attacks)}) for label, sweep in job.sweeps},
        main_attacks=job.main_attacks,
    )
    return Collected(runs, metrics, with_decimals(measurements))


def read_scores(path: Path) -> pd.DataFrame:
    """Raw scores of one run."""
    return _read_scores(path.absolute(), path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=2)  # a run and what it is compared with: features of all runs would fill the memory
def _read_scores(path: Path, _: int) -> pd.DataFrame:
    # A few bytes may announce rows that fill the memory.
    if (rows := pyarrow.parquet.read_metadata(verified(path)).num_rows) > MAX_ROWS:
        raise DataError(f"{path}: has {rows} rows, at most {MAX_ROWS} are read; score fewer images at once")
    return pd.read_parquet(path)


def read_without_features(path: Path) -> pd.DataFrame:
    """Raw scores of one run without the feature vectors, which are most of them."""
    names = pyarrow.parquet.read_schema(verified(path)).names
    return pd.read_parquet(path, columns=[name for name in names if not re.search(r"\.f\d+$", name)])


def states(row: ScoredRun) -> Iterator[tuple[int, str, pd.DataFrame]]:
    """(steps, prompt list, scores) of one run."""
    for state, group in read_scores(row.folder("score") / "scores.parquet").groupby(["steps", "prompt_set"]):
        steps, prompts = cast("tuple[int, str]", state)
        yield int(steps), prompts, group


def measure_images(runs: list[ScoredRun], metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Per-image values of every metric that has them."""
    frames = []
    for run in runs:
        for steps, prompts, scores in states(run):
            for label, (module, config, _) in metrics.items():
                if getattr(config, "prompts", None) != prompts:
                    continue
                value = None
                if hasattr(module, "per_image"):
                    value = module.per_image(scores, config)
                elif hasattr(module, "per_attacked_image") and run.before:
                    value = module.per_attacked_image(scores, scores_before(run, scores), config)
                if value is not None:
                    # A copy: a view of one number would keep the features of every run in memory.
                    frame = scores[["prompt_id", "image_index"]].assign(value=value.copy(), metric=label)
                    frames.append(frame.assign(**run.state, steps=steps))
    return pd.concat(frames, ignore_index=True)[[*IMAGE_COLUMNS]]


def scores_before(run: ScoredRun, scores: pd.DataFrame) -> pd.DataFrame:
    """The scores of the same images before an attack on their prompts, with the same order and index.

    Raises:
        KeyError: If an image has no score from before the attack.
    """
    every = read_scores(Path(str(run.before)) / "scores.parquet")
    every = every[every["prompt_set"] == scores["prompt_set"].iloc[0]]
    keys = ["prompt_id", "image_index"]
    last = every[every["steps"] == every["steps"].max()].set_index(keys)
    return last.loc[pd.MultiIndex.from_frame(scores[keys])].set_axis(scores.index)


def measure_sets(runs: list[ScoredRun], metrics: Mapping[str, Any], job: Measurable) -> pd.DataFrame:
    """Values of every metric that needs a whole set of images, or the record of an attack or of unlearning."""
    heldout = {attack: images_of(Path(table)) for attack, table in job.heldout.items()}
    bases = {(run.attack, run.seed): run for run in runs if run.model == job.base}
    rows: list[dict[str, Any]] = []
    for run in runs:
        for label, (module, config, _) in metrics.items():
            if hasattr(module, "of_set"):
                for steps, prompts, scores in states(run):
                    if config.prompts == prompts:
                        reference = read_scores(Path(job.references[job.compared[label][run.attack]]))
                        value = module.of_set(scores, reference, config)
                        rows.append({**run.state, "steps": steps, "metric": label, "value": value, "n": len(scores)})
            elif hasattr(module, "of_attack") and run.is_attacked:
                attacked, base = (_history(of, "attack") for of in (run, bases[run.attack, run.seed]))
                value, steps = module.of_attack(attacked, base, config), int(attacked["step"].max())
                rows.append({**run.state, "steps": steps, "metric": label, "value": value, "n": heldout[run.attack]})
            elif hasattr(module, "of_unlearning") and not run.is_attacked and "unlearn" in run.folders:
                value = module.of_unlearning(_history(run, "unlearn"), config)
                rows.append({**run.state, "steps": 0, "metric": label, "value": value, "n": EXAMPLES})
    return pd.DataFrame(rows, columns=[*RUN_COLUMNS])


def images_of(table: Path) -> int:
    """Number of images of a set, by all tables of captions in the folder of one, which need not be there itself.

    Raises:
        DataError: If there is no table at all.
    """
    names = caption_tables(folder_in_place(table.parent))
    if not names:
        raise DataError(f"{table}: missing, and no folder beside it has a table of captions")
    return sum(len(read_table(table.parent / name).rows) for name in names)


def _history(run: ScoredRun, stage: str) -> pd.DataFrame:
    return pd.read_csv(verified(run.folder(stage) / "history.csv"))


def histories(runs: list[ScoredRun]) -> pd.DataFrame:
    """Training curves of every run that was trained: columns :data:`resalign.analysis.measurements.HISTORY_COLUMNS`."""
    frames = []
    for run in runs:
        for stage in ("unlearn", "attack"):
            if stage in run.folders and (stage == "attack" or not run.is_attacked):
                label = f"{run.model}/{run.attack}" if run.is_attacked else run.model
                frames.append(_history(run, stage).assign(stage=stage, label=label, seed=run.seed))
    columns = [*HISTORY_COLUMNS]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def first_rows(scores: pd.DataFrame, prompts: int) -> pd.DataFrame:
    """The first image of each of the first prompts of one list in one state."""
    first = scores[scores["image_index"] == 0]
    return first[first["prompt_id"].isin(first["prompt_id"].drop_duplicates().head(prompts))]


def is_kept(scores: pd.DataFrame, job: PruneJob) -> pd.Series:
    """Whether each image of a run stays, by its raw scores."""
    module, config, _ = load_metric(*job.flags)
    settings: Any = config
    # A metric that reads labels flags images of its own list alone.
    reads_labels = any(need.labels for need in settings.needs())
    kept = pd.Series(False, index=scores.index)
    for (_, prompts), state in scores.groupby(["steps", "prompt_set"]):
        if job.keep == "flagged" and (prompts == settings.prompts or not reads_labels):
            kept[state.index] = module.per_image(state, config) > 0
        if prompts in job.shown:
            kept[first_rows(state, job.shown_prompts).index] = True
    return kept


def first_images(collected: Collected, job: MeasureJob, prompts: str) -> pd.DataFrame:
    """The first training seed's first image of each of a list's first prompts, and whether it is flagged.

    Raises:
        DataError: If an image's path leads out of the experiment's folder.
    """
    module, config, _ = collected.metrics[job.flags]
    frames = []
    for run in collected.runs:
        for steps, name, scores in states(run):
            if name == prompts and run.seed == job.rows[0].seeds[0]:
                frame = scores[["prompt_id", "prompt", "image_index", "path"]].assign(
                    flagged=module.per_image(scores, config) > 0
                )
                frame = first_rows(frame, job.report.gallery_prompts)
                if outside := [path for path in frame["path"] if not is_inside(str(path))]:
                    where = run.folder("score") / "scores.parquet"
                    raise DataError(f"{where}: the image {outside[0]!r} is not below this folder; score it again")
                frames.append(frame.assign(**run.state, steps=steps))
    return pd.concat(frames, ignore_index=True)


def provenance(runs: list[ScoredRun], job: MeasureJob) -> dict[str, str]:
    """Experiment, seeds, versions and code of the scores."""
    records = [read_record(run.folder("score") / "run.json") for run in runs]
    versions = {json.dumps(record["versions"], sort_keys=True) for record in records}
    return {
        "experiment": f"{job.name}, tier {job.tier}",
        "training seeds": ", ".join(str(seed) for seed in job.training_seeds),
        "sampling seed": str(job.sampling_seed),
        "versions": "; ".join(", ".join(f"{k} {v}" for k, v in json.loads(text).items()) for text in sorted(versions)),
        "code of the scoring stage (sha256)": ", ".join(sorted({record["source_sha256"] for record in records})),
    }
