"""Reads the raw scores and records of all runs, applies metrics and thresholds, and writes tables, figures and page."""

from __future__ import annotations

import yaml

from resalign.report.build import build_report
from resalign.report.collect import (
    Row,
    gallery,
    histories,
    load_metric,
    measure_images,
    measure_sets,
    provenance,
    timings,
)
from resalign.report.measurements import Measurements
from resalign.report.page import ReportContext
from resalign.report.settings import ReportConfig
from resalign.stage import parse_arguments, run_stage, running


def main() -> None:
    """Command line of the rule report."""
    arguments = parse_arguments(__doc__ or "")
    job, output = arguments.job, arguments.output
    with running(arguments):
        rows = [Row(r["model"], r["attack"], r["dataset"], s, r["folders"]) for r in job["rows"] for s in r["seeds"]]
        metrics = {label: load_metric(label, dict(settings)) for label, settings in job["metrics"].items()}
        measurements = Measurements(
            images=measure_images(rows, metrics),
            runs=measure_sets(rows, metrics, job),
            metrics={label: info for label, (_, _, info) in metrics.items()},
            models=tuple(job["models"]),
            datasets=tuple(job["datasets"]),
            base=job["base"],
        )
        context = ReportContext(
            title=job["title"],
            subtitle=job["subtitle"],
            concept=job["concept"],
            config_yaml=yaml.safe_dump(job["config"], sort_keys=False, width=110),
            provenance=provenance(rows, job),
            settings=ReportConfig.parse(job["report"], where="report"),
        )
        build_report(measurements, histories(rows), timings(job), gallery(rows, metrics, job), context, output)


if __name__ == "__main__":
    run_stage(main)
