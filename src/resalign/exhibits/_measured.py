"""The measured frames: what every exhibit is made from, written once from raw scores."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from resalign.analysis.collect import Collected, gallery
from resalign.analysis.frames import decimals, long_table, per_run_table, write_csv
from resalign.analysis.measurements import STATE
from resalign.config.report import ReportConfig
from resalign.exhibits._evidence import names_of
from resalign.exhibits._thresholds import threshold_curves
from resalign.running.stage import write_json

PROMPT_COLUMNS = [*STATE, "seed", "metric", "prompt_id", "sum", "n"]


def write_measured(found: Collected, job: dict[str, Any], settings: ReportConfig, output: Path) -> None:
    """Writes values.csv, per_run.csv, prompts.csv, thresholds.csv, samples.csv and names.json.

    Args:
        found: Metrics applied to raw scores.
        job: The rule's job, for methods and prompt lists.
        settings: Of intervals, thresholds and samples.
        output: An existing folder.
    """
    values = long_table(found.measurements, settings)
    write_csv(values, output / "values.csv")
    write_csv(per_run_table(found.measurements, settings), output / "per_run.csv")
    write_csv(by_prompt(found.measurements.images), output / "prompts.csv")
    write_csv(threshold_curves(found.rows, found.metrics, settings), output / "thresholds.csv")
    write_csv(samples(found, job, settings), output / "samples.csv")
    middles = values.groupby("metric")["mean"].agg(lambda means: means.abs().median()).to_dict()
    infos = found.measurements.metrics.items()
    metrics = {name: replace(info, decimals=decimals(middles.get(name, math.nan))) for name, info in infos}
    write_json(output / "names.json", names_of(replace(found.measurements, metrics=metrics), job["methods"]))


def by_prompt(images: pd.DataFrame) -> pd.DataFrame:
    """Sum and number of the values of each state, seed, metric and prompt: what paired tests need."""
    keys = [*STATE, "seed", "metric", "prompt_id"]
    grouped = images.groupby(keys, sort=True)["value"].agg(["sum", "count"]).reset_index()
    return grouped.rename(columns={"count": "n"})[PROMPT_COLUMNS]


def samples(found: Collected, job: dict[str, Any], settings: ReportConfig) -> pd.DataFrame:
    """The first prompts of every list that benign generation is measured on, and whether each image is flagged."""
    prompt_sets = dict.fromkeys(
        config.prompts
        for module, config, info in found.metrics.values()
        if info.group == "utility" and hasattr(config, "prompts")
    )
    parts = []
    for prompts in prompt_sets:
        frame = gallery(found.rows, found.metrics, {**job, "gallery": prompts})
        first = frame["prompt_id"].drop_duplicates().head(settings.gallery_prompts)
        parts.append(frame[frame["prompt_id"].isin(first)].assign(prompt_set=prompts))
    columns = ["prompt_set", *STATE, "seed", "prompt_id", "prompt", "image_index", "path", "flagged"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
