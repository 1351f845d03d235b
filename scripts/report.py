"""Reads the raw scores and records of all runs, applies metrics and thresholds, and writes tables, figures and page."""

from __future__ import annotations

import yaml

from resalign.accounting.times import read_timings
from resalign.analysis.collect import collect, gallery, histories, provenance
from resalign.analysis.measurements import FOCUS
from resalign.config.plan import RESULTS
from resalign.config.report import ReportConfig
from resalign.disclosure import values_without_places
from resalign.jobs import report as files
from resalign.report import overlap, scorer_check
from resalign.report.build import build_report
from resalign.report.page import ReportContext
from resalign.running.stage import parse_arguments, run_stage, running


def main() -> None:
    """Command line of the rule report."""
    arguments = parse_arguments(__doc__ or "")
    job, output = arguments.job, arguments.output
    with running(arguments, made=(files.PAGE, files.WORDS, "tables", "figures")):
        found = collect(job)
        context = ReportContext(
            title=job["title"],
            subtitle=job["subtitle"],
            concept=job["concept"],
            config_yaml=yaml.safe_dump(values_without_places(job["config"]), sort_keys=False, width=110),
            provenance=provenance(found.rows, job),
            settings=ReportConfig.parse(job["report"], where="report"),
            command=job["command"],
            folder=f"{RESULTS}/{job['name']}",
            caveats=(*overlap.caveats(job["overlap"]), *scorer_check.caveats(job["scorer_check"])),
            methods=tuple(label for label, own in job["config"]["unlearning"].items() if own["name"] == FOCUS),
        )
        images = gallery(found.rows, found.metrics, job)
        build_report(found.measurements, histories(found.rows), read_timings(job), images, context, output)


if __name__ == "__main__":
    run_stage(main)
