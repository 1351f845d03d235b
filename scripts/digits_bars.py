"""Holds the demo world against its bars; ends with status 1 if one is not met."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd

from resalign.digits.bars import detector_bars, generator_bars
from resalign.hashes import verified
from resalign.jobs.digits import BarsJob
from resalign.metrics import ip, retained_accuracy
from resalign.running.stage import parse_arguments, run_stage, write_json


def main() -> None:
    """Command line of the rule digits_bars."""
    arguments = parse_arguments(__doc__, BarsJob)
    job = arguments.job
    flags = ip.Config.parse(job.ip, where="metrics.ip")
    accuracy = retained_accuracy.Config.parse(job.retained_accuracy, where="metrics.retained_accuracy")
    heldout = {
        name: json.loads(verified(Path(folder) / "heldout.json").read_text("utf-8"))
        for name, folder in job.detectors.items()
    }
    bars = generator_bars(pd.read_parquet(verified(job.scores)), flags, accuracy)
    bars += detector_bars(heldout, pd.read_parquet(verified(job.reference)), flags)
    sys.stdout.write("\n".join(str(bar) for bar in bars) + "\n")
    missed = [bar.name for bar in bars if not bar.met]
    if missed:
        sys.exit(f"{len(missed)} of {len(bars)} bars are not met: {missed}")
    write_json(arguments.output / "bars.json", {bar.name: bar.value for bar in bars})


if __name__ == "__main__":
    run_stage(main)
