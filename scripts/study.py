"""Counts a study's hits and gathers its held-out losses, with a manifest of what they come from."""

from __future__ import annotations

from resalign.analysis.collect import load_metric, rows_of
from resalign.jobs.study import StudyJob
from resalign.running.stage import parse_arguments, run_stage, running, write_json
from resalign.study.counts import FILES, count_hits, heldout_losses, write_counts
from resalign.study.manifest import study_manifest


def main() -> None:
    """Command line of the rule study_counts."""
    arguments = parse_arguments(__doc__, StudyJob)
    job, output = arguments.job.plain(), arguments.output
    with running(arguments, made=(*FILES, "manifest.json")):
        rows = rows_of(job)
        loaded = {label: load_metric(label, dict(settings)) for label, settings in arguments.job.metrics.items()}
        counts = count_hits(rows, {label: (module, config) for label, (module, config, _) in loaded.items()})
        hashes = write_counts(counts, heldout_losses(rows), output)
        write_json(output / "manifest.json", study_manifest(job, counts, hashes))


if __name__ == "__main__":
    run_stage(main)
