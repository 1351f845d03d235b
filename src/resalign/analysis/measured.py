"""Writes the measured frames of an experiment once from raw scores, and reads them for all that shows results."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from resalign.analysis.collect import Collected, first_images, histories, provenance
from resalign.analysis.frames import decimals, long_table, per_run_table, read_csv, write_exact_csv
from resalign.analysis.measurements import (
    GALLERY_COLUMNS,
    IMAGE_COLUMNS,
    RUN_COLUMNS,
    STATE,
    Measurements,
    MetricInfo,
    Sweep,
)
from resalign.analysis.thresholds import threshold_curves
from resalign.hashes import verified
from resalign.jobs.measure import MeasureJob
from resalign.running.stage import write_json


def write_measured(collected: Collected, job: MeasureJob, output: Path) -> None:
    """Writes every file of :data:`resalign.jobs.measure.FILES`.

    Args:
        collected: Metrics applied to raw scores.
        job: The rule's job: settings, methods, prompt lists.
        output: An existing folder.
    """
    measurements, settings = collected.measurements, job.report
    values = long_table(measurements, settings)
    frames = {
        "values": values,
        "per_run": per_run_table(measurements, settings),
        "thresholds": threshold_curves(collected.runs, collected.metrics, settings),
        "samples": samples(collected, job),
        "images": measurements.images,
        "sets": measurements.runs,
        "histories": histories(collected.runs),
    }
    for name, frame in frames.items():
        write_exact_csv(frame, output / f"{name}.csv")
    middles = values.groupby("metric")["mean"].agg(lambda means: means.abs().median()).to_dict()
    exhibit_decimals = {name: decimals(middles.get(name, math.nan)) for name in measurements.metrics}
    names = names_of(measurements, job.methods)
    write_json(
        output / "names.json",
        {**names, "exhibit_decimals": exhibit_decimals, "provenance": list(provenance(collected.runs, job).items())},
    )


def samples(collected: Collected, job: MeasureJob) -> pd.DataFrame:
    """The first prompts of the gallery's list and of every list of a utility metric, and whether images are flagged."""
    lists = [
        config.prompts
        for module, config, info in collected.metrics.values()
        if info.group == "utility" and hasattr(config, "prompts")
    ]
    shown = dict.fromkeys([job.gallery, *lists])
    parts = [first_images(collected, job, prompts).assign(prompt_set=prompts) for prompts in shown]
    columns = ["prompt_set", *STATE, "seed", "prompt_id", "prompt", "image_index", "path", "flagged"]
    return pd.concat(parts, ignore_index=True)[columns]


def names_of(measurements: Measurements, methods: Mapping[str, str]) -> dict[str, Any]:
    """Models, attacks, metrics and sweeps as plain values, for names.json; pairs keep the order.

    Args:
        measurements: What was measured.
        methods: Unlearning method by model.
    """
    return {
        "models": measurements.models,
        "base": measurements.base,
        "attacks": list(measurements.attacks.items()),
        "main_attacks": measurements.main_attacks,
        "metrics": [(label, asdict(info)) for label, info in measurements.metrics.items()],
        "sweeps": [(k, {**vars(s), "attacks": list(s.attacks.items())}) for k, s in measurements.sweeps.items()],
        "titles": dict(measurements.titles),
        "methods": dict(methods),
    }


def read_names(path: Path) -> dict[str, Any]:
    """The values of names.json."""
    names: dict[str, Any] = json.loads(verified(path).read_text(encoding="utf-8"))
    return names


def measurements_of(
    names: Mapping[str, Any], images: pd.DataFrame | None = None, runs: pd.DataFrame | None = None
) -> Measurements:
    """The inverse of :func:`names_of`; without frames the measurements name everything and hold no value."""
    return Measurements(
        images=pd.DataFrame(columns=list(IMAGE_COLUMNS)) if images is None else images,
        runs=pd.DataFrame(columns=list(RUN_COLUMNS)) if runs is None else runs,
        metrics={label: MetricInfo(**{**info, "range": tuple(info["range"])}) for label, info in names["metrics"]},
        models=tuple(names["models"]),
        attacks=dict(names["attacks"]),
        base=names["base"],
        titles=names["titles"],
        sweeps={label: Sweep(**{**sweep, "attacks": dict(sweep["attacks"])}) for label, sweep in names["sweeps"]},
        main_attacks=names["main_attacks"],
    )


def with_exhibit_decimals(measurements: Measurements, names: Mapping[str, Any]) -> Measurements:
    """The measurements with three significant digits for every metric, as an exhibit shows them."""
    metrics = {
        name: replace(info, decimals=names["exhibit_decimals"][name]) for name, info in measurements.metrics.items()
    }
    return replace(measurements, metrics=metrics)


class MeasuredFolder:
    """The files of one experiment's measured folder, each read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        """Takes the folder.

        Args:
            folder: What the rule measure has written.
        """
        self.folder = folder
        self.names = read_names(folder / "names.json")

    def frame(self, name: str) -> pd.DataFrame:
        """A frame by name, ``values`` or ``per_run``."""
        return read_csv(self.folder / f"{name}.csv")

    def measurements(self) -> Measurements:
        """Names with the values of every image and run."""
        return measurements_of(self.names, self.frame("images"), self.frame("sets"))

    def gallery(self, prompts: str | None, retained: int = 0) -> pd.DataFrame:
        """The samples of one prompt list, then those of a few retained prompts; no rows for None.

        Args:
            prompts: Name of the list.
            retained: Number of prompts of the first utility metric's list.
        """
        rows = self.frame("samples")
        samples = rows[rows["prompt_set"] == prompts]
        names = measurements_of(self.names)
        utility = names.headline("utility")
        if len(samples) and utility and (other := names.metrics[utility].prompt_set) != prompts:
            others = rows[rows["prompt_set"] == other]
            others = others[others["prompt_id"].isin(others["prompt_id"].drop_duplicates().head(retained))]
            # Ids are a list's own.
            samples = pd.concat([samples, others.assign(prompt_id=other + "/" + others["prompt_id"])])
        return samples[[*GALLERY_COLUMNS]].reset_index(drop=True)

    @property
    def provenance(self) -> dict[str, str]:
        """Experiment, seeds, versions and code behind the scores."""
        return dict(self.names["provenance"])
