"""An ablation in numbers: every variant measured by itself, as tidy tables with the variant in front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from resalign.analysis.collect import collect
from resalign.analysis.frames import LONG_COLUMNS, PER_RUN_COLUMNS, long_table, per_run_table
from resalign.jobs.ablation import AblationJob

VALUE_COLUMNS = ["variant", *LONG_COLUMNS]
VARIANT_RUN_COLUMNS = ["variant", *PER_RUN_COLUMNS]


def measured(job: AblationJob) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every variant's values and those of each run, in the order of the variants.

    The draws of an interval depend only on the state and the metric, so that variants are resampled alike.
    """
    values: list[pd.DataFrame] = []
    runs: list[pd.DataFrame] = []
    for variant in job.variants:
        measurements = collect(variant.measured).measurements
        for tables, make in ((values, long_table), (runs, per_run_table)):
            table = make(measurements, job.report)
            # The base is measured too where learnability is relative to it.
            tables.append(table[table["model"].isin(job.models)].assign(variant=variant.variant))
    long, per_run = (pd.concat(tables, ignore_index=True) for tables in (values, runs))
    if job.checkpoints:
        long, per_run = by_steps(long), by_steps(per_run)
    return long[VALUE_COLUMNS], per_run[VARIANT_RUN_COLUMNS]


def by_steps(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose variants are the steps of fine-tuning, before it (0) first."""
    return table.sort_values("steps", kind="stable", ignore_index=True).assign(variant=lambda t: t["steps"].astype(str))


def described(job: AblationJob, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Changed settings and configuration hash of each variant, and whether it is the experiment's own configuration.

    Args:
        job: The ablation's.
        names: The variants of the tables, in order; checkpoints are all of one configuration.
    """
    keys = {"overrides", "config_hash", "is_own"}
    found = {variant.variant: variant.model_dump(mode="json", include=keys) for variant in job.variants}
    return dict.fromkeys(names, found[""]) if job.checkpoints else found
