"""Makes one image set from fetched archives and tables; every image is checked."""

from __future__ import annotations

from resalign.config import registry
from resalign.files import empty
from resalign.jobs.prepare import SETS, PrepareJob
from resalign.running.stage import parse_arguments, run_stage, running


def main() -> None:
    """Command line of the rule prepare."""
    arguments = parse_arguments(__doc__, PrepareJob)
    member, config = registry.configured(SETS, arguments.job.set, where=f"prepared.{arguments.job.name}")
    with running(arguments):
        empty(arguments.output)  # of other settings, or of an attempt that was killed
        member.prepare(config, arguments.output)


if __name__ == "__main__":
    run_stage(main)
