"""Makes one file of one exhibit from measured frames."""

from __future__ import annotations

import argparse
from pathlib import Path

from resalign.config import registry
from resalign.config.report import ReportConfig
from resalign.running.stage import read_job, run_stage


def main() -> None:
    """Command line of the rule exhibit."""
    from resalign.exhibits._evidence import Evidence
    from resalign.exhibits._products import write

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", type=read_job, required=True, help="settings and frames' paths as JSON; - reads them")
    parser.add_argument("--exhibit", required=True, help="name of the exhibit, its module's in resalign.exhibits")
    parser.add_argument("--output", type=Path, required=True, help="the file to write; its suffix says which kind")
    arguments = parser.parse_args()
    job = arguments.job
    evidence = Evidence(
        settings=ReportConfig.parse(job["report"], where="report"),
        files={name: Path(path) for name, path in job["files"].items()},
        another_world=job["another_world"],
        series_of=job["series"],
        metric_modules=job["metric_modules"],
        plan=tuple(job["plan"]),
    )
    product = registry.member("exhibits", arguments.exhibit).make(evidence)
    write(product, arguments.output, evidence.settings)


if __name__ == "__main__":
    run_stage(main)
