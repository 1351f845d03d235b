"""Counts a study's hits, with a manifest of what they come from."""

from __future__ import annotations

from pathlib import Path

from resalign.analysis.measured import MeasuredFolder
from resalign.jobs.study import StudyJob
from resalign.running.stage import parse_arguments, run_stage, running, write_json
from resalign.study.counts import FILE, count_hits, write_counts
from resalign.study.manifest import study_manifest


def main() -> None:
    """Command line of the rule study_counts."""
    arguments = parse_arguments(__doc__, StudyJob)
    job, output = arguments.job, arguments.output
    with running(arguments, made=(FILE, "manifest.json")):
        counts = count_hits(MeasuredFolder(Path(job.measured)).frame("images"), job.compared)
        hashes = write_counts(counts, output)
        write_json(output / "manifest.json", study_manifest(job, counts, hashes))


if __name__ == "__main__":
    run_stage(main)
