"""Packs a finished experiment, with the code that made it, into one archive that somebody else can verify."""

from __future__ import annotations

from pathlib import Path

from resalign.artifact.archive import write_archive
from resalign.artifact.pack import gather
from resalign.artifact.published import listing
from resalign.artifact.source import read_source
from resalign.config.closure import ROOT
from resalign.jobs.artifact import ArtifactJob
from resalign.running.stage import parse_arguments, run_stage, running
from resalign.tracking import log


def main() -> None:
    """Command line of the rule artifact."""
    arguments = parse_arguments(__doc__, ArtifactJob)
    with running(arguments):
        source = read_source(ROOT)
        if source.is_changed:
            log.warning("the source differs from its revision; the archive has the difference in local/")
        members = gather(arguments.job, source, Path())
        for line in listing(members, source):
            log.info("%s", line)
        write_archive(arguments.output / f"{arguments.job.name}.zip", members)
        log.info("%s: %d members", arguments.job.name, len(members))


if __name__ == "__main__":
    run_stage(main)
