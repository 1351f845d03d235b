"""An ablation in numbers: every variant measured by itself, as tidy tables with the variant in front."""

from __future__ import annotations

from typing import Any

import pandas as pd

from resalign.analysis.collect import collect
from resalign.analysis.frames import LONG_COLUMNS, PER_RUN_COLUMNS, long_table, per_run_table
from resalign.config.report import ReportConfig

VALUE_COLUMNS = ["variant", *LONG_COLUMNS]
VARIANT_RUN_COLUMNS = ["variant", *PER_RUN_COLUMNS]


def measured(job: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every variant's values and those of each run, in the order of the variants.

    The draws of an interval depend on the state and the metric alone, so that variants are resampled alike.

    Args:
        job: From :func:`resalign.jobs.ablation.measuring_job`.
    """
    settings = ReportConfig.parse(job["report"], where="report")
    values: list[pd.DataFrame] = []
    runs: list[pd.DataFrame] = []
    for variant in job["variants"]:
        measurements = collect(variant["measured"]).measurements
        for found, of in ((values, long_table), (runs, per_run_table)):
            table = of(measurements, settings)
            # The base is measured too where learnability is relative to it.
            found.append(table[table["model"].isin(job["models"])].assign(variant=variant["variant"]))
    long, per_run = (pd.concat(tables, ignore_index=True) for tables in (values, runs))
    if job["checkpoints"]:
        long, per_run = by_steps(long), by_steps(per_run)
    return long[VALUE_COLUMNS], per_run[VARIANT_RUN_COLUMNS]


def by_steps(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose variants are the steps of fine-tuning, before it (0) first."""
    return table.sort_values("steps", kind="stable", ignore_index=True).assign(variant=lambda t: t["steps"].astype(str))


def described(job: dict[str, Any], names: list[str]) -> dict[str, dict[str, Any]]:
    """What each variant is: changed settings, hash of the resolved configuration, whether that is the experiment's own.

    Args:
        job: From :func:`resalign.jobs.ablation.measuring_job`.
        names: The variants of the tables, in order; checkpoints are all of one configuration.
    """
    keys = ("overrides", "config_hash", "is_own")
    found = {variant["variant"]: {key: variant[key] for key in keys} for variant in job["variants"]}
    return dict.fromkeys(names, found[""]) if job["checkpoints"] else found
