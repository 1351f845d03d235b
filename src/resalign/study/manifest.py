"""The manifest beside a study's counts: what they were made from, by which code, in how many hours."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd

from resalign.hashes import read_record
from resalign.jobs.study import StudyJob
from resalign.study.counts import cell_sizes

_SECONDS_AN_HOUR = 3600
_DECIMALS = 3
_REGISTERED = {"study", "selection", "registered"}
_COPIED = _REGISTERED | {"name", "config", "tier", "seeds", "base", "models", "attacks", "command"}
_SHARED = ("assets", "inputs")  # stages that see no result; their files may be older than the registration


def study_manifest(job: StudyJob, counts: pd.DataFrame, hashes: dict[str, str]) -> dict[str, Any]:
    """Gathers the records of every run behind the counts.

    Args:
        job: The study's job; its timings name the stage and the folder of every run.
        counts: The study's counts, for the size of a cell.
        hashes: sha256 of counts.csv.

    Returns:
        name, config (every default filled in) with its sha256, tier, seeds, base, models, attacks, study and selection
        (the bounds), registered (see :func:`resalign.jobs.study.registration`), first_result (when the first run that
        trained, sampled or scored began, in seconds since 1970), command, cells (sizes), hours (in all and of each
        stage), runs (of each stage), cpus, machines, versions, source_sha256 (of each stage's code; several where runs
        differ in it) and files (sha256).
    """
    seconds: dict[str, float] = defaultdict(float)
    runs: dict[str, int] = defaultdict(int)
    sources: dict[str, set[str]] = defaultdict(set)
    versions, cpus, machines, began = set(), set(), set(), []
    for stage, _, _, folder in job.timings:
        timing, record = (read_record(Path(folder) / name) for name in ("timing.json", "run.json"))
        seconds[stage] += timing["seconds"]
        runs[stage] += 1
        if stage not in _SHARED:
            began.append(timing["started_at"])
        cpus.add(timing["cpus"])
        machines.add(timing["machine"])
        sources[stage].add(record["source_sha256"])
        versions.add(json.dumps(record["versions"], sort_keys=True))
    hours = {stage: round(value / _SECONDS_AN_HOUR, _DECIMALS) for stage, value in sorted(seconds.items())}
    config = json.dumps(job.config, sort_keys=True)
    return {
        **job.model_dump(mode="json", include=_COPIED),
        "config_sha256": hashlib.sha256(config.encode()).hexdigest(),
        "first_result": min(began),
        "cells": cell_sizes(counts),
        "hours": {"total": round(sum(seconds.values()) / _SECONDS_AN_HOUR, _DECIMALS), **hours},
        "runs": dict(sorted(runs.items())),
        "cpus": sorted(cpus),
        "machines": sorted(machines),
        "versions": [json.loads(text) for text in sorted(versions)],
        "source_sha256": {stage: sorted(digests) for stage, digests in sorted(sources.items())},
        "files": hashes,
    }
