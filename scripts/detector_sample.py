"""Draws the images that people label for the detector audit; writes the sheet, a blurred page, and the key."""

from __future__ import annotations

from resalign.analysis.collect import load_metric, runs_of
from resalign.detector_audit.sample import IMAGES, KEY, PAGE, draw, population, write_sample
from resalign.jobs.detector_audit import DetectorSampleJob
from resalign.running.stage import parse_arguments, run_stage, running


def main() -> None:
    """Command line of the rule detector_sample."""
    arguments = parse_arguments(__doc__, DetectorSampleJob)
    job, output = arguments.job, arguments.output
    label, settings = job.metric
    with running(arguments, made=(KEY, PAGE, IMAGES)):  # people write into the sheet
        module, config, _ = load_metric(label, dict(settings))
        images = population(runs_of(job.rows), label, (module, config), job.base)
        sample = draw(images, job.images, job.seed)
        shown = {"title": job.title, "concept": job.concept, "pixels": job.shown_pixels}
        write_sample(sample, shown, output)


if __name__ == "__main__":
    run_stage(main)
