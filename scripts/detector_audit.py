"""Error rates of the detectors from the labels of the sample, and every state's rate corrected for them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from resalign.analysis.collect import load_metric, runs_of
from resalign.detector_audit.labels import read_labels, stand_in_labels
from resalign.detector_audit.sample import KEY, detector_rules, population
from resalign.detector_audit.tables import AuditContext, write_audit
from resalign.hashes import verified
from resalign.jobs.detector_audit import DetectorAuditJob
from resalign.metrics._flags import FlagRule
from resalign.running.stage import parse_arguments, run_stage, running


def main() -> None:
    """Command line of the rule detector_audit."""
    arguments = parse_arguments(__doc__, DetectorAuditJob)
    job, output = arguments.job, arguments.output
    label, settings = job.metric
    stand_in = FlagRule(**job.stand_in.model_dump()) if job.stand_in else None
    with running(arguments):
        # A prompt's id, a number in some lists, is text in the scores.
        sample = pd.read_csv(verified(Path(job.sample) / KEY), dtype={"prompt_id": str}, keep_default_na=False)
        labels = None if stand_in else read_labels([Path(path) for path in job.labels], sample)
        module, config, _ = load_metric(label, dict(settings))
        images = population(runs_of(job.rows), label, (module, config), job.base, stand_in)
        context = AuditContext(
            title=job.title,
            concept=job.concept,
            metric=label,
            stand_in=_in_words(stand_in) if stand_in else None,
            command=job.command,
            settings=job.report,
        )
        found = stand_in_labels(sample, images) if labels is None else labels
        write_audit(sample, found, images, [label, *detector_rules(label, config)], context, output)


def _in_words(rule: FlagRule) -> str:
    return f"{rule.scorer}: {' or '.join(rule.quantities)} > {rule.threshold:g}"


if __name__ == "__main__":
    run_stage(main)
