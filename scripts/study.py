"""Counts a study's hits and gathers its held-out losses, with a manifest of what they come from."""

from __future__ import annotations

from resalign.analysis.collect import Row, load_metric
from resalign.running.stage import parse_arguments, run_stage, running, write_json
from resalign.study.counts import FILES, count_hits, heldout_losses, write_counts
from resalign.study.manifest import study_manifest


def main() -> None:
    """Command line of the rule study_counts."""
    arguments = parse_arguments(__doc__ or "")
    job, output = arguments.job, arguments.output
    with running(arguments, made=(*FILES, "manifest.json")):
        rows = [Row(r["model"], r["attack"], r["dataset"], s, r["folders"]) for r in job["rows"] for s in r["seeds"]]
        loaded = {label: load_metric(label, dict(settings)) for label, settings in job["metrics"].items()}
        counts = count_hits(rows, {label: (module, config) for label, (module, config, _) in loaded.items()})
        hashes = write_counts(counts, heldout_losses(rows), output)
        write_json(output / "manifest.json", study_manifest(job, counts, hashes))


if __name__ == "__main__":
    run_stage(main)
