"""Writes the report's tables, figures and page from the measured frames."""

from __future__ import annotations

from pathlib import Path

import yaml

from resalign.accounting.job_records import read_job_records
from resalign.accounting.times import Timings
from resalign.analysis.measured import MeasuredFolder
from resalign.analysis.measurements import FOCUS
from resalign.config.plan import RESULTS
from resalign.disclosure import values_without_places
from resalign.jobs import report as files
from resalign.jobs.report import ReportJob
from resalign.report import overlap, scorer_check
from resalign.report.build import Results, build_report
from resalign.report.page import ReportContext
from resalign.running.stage import parse_arguments, run_stage, running


def main() -> None:
    """Command line of the rule report."""
    arguments = parse_arguments(__doc__, ReportJob)
    job: ReportJob = arguments.job
    with running(arguments, made=(files.PAGE, files.WORDS, "tables", "figures")):
        measured = MeasuredFolder(Path(job.measured))
        results = Results(
            measurements=measured.measurements(),
            values=measured.frame("values"),
            per_run=measured.frame("per_run"),
            histories=measured.frame("histories"),
            gallery=measured.gallery(job.gallery, job.report.gallery_retained),
            timings=Timings(tuple(read_job_records(job.timings))),
        )
        context = ReportContext(
            title=job.title,
            subtitle=job.subtitle,
            concept=job.concept,
            config_yaml=yaml.safe_dump(values_without_places(job.config), sort_keys=False, width=110),
            provenance=measured.provenance,
            settings=job.report,
            command=job.command,
            folder=f"{RESULTS}/{job.name}",
            caveats=(*job.notes, *overlap.caveats(job.overlap), *scorer_check.caveats(job.scorer_check)),
            definitions=job.definitions,
            methods=tuple(label for label, own in job.config["unlearning"].items() if own["name"] == FOCUS),
        )
        build_report(results, context, arguments.output)


if __name__ == "__main__":
    run_stage(main)
