"""Makes the files of one exhibit from measured frames."""

from __future__ import annotations

from pathlib import Path

from resalign.config import registry
from resalign.jobs.exhibit import ExhibitJob
from resalign.jobs.series import SERIES
from resalign.running.stage import parse_arguments, run_stage


def main() -> None:
    """Command line of the rule exhibit."""
    from resalign.display.products import write
    from resalign.exhibits import _series
    from resalign.exhibits._inputs import ExhibitInputs

    arguments = parse_arguments(__doc__, ExhibitJob)
    job = arguments.job
    inputs = ExhibitInputs(job.report, {name: Path(path) for name, path in job.files.items()}, job.words)
    if job.exhibit in SERIES:
        product = _series.make(inputs, job.exhibit)
    else:
        product = registry.member("exhibits", job.exhibit).make(inputs)
    write(product, arguments.output / job.exhibit, job.report)


if __name__ == "__main__":
    run_stage(main)
