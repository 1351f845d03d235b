"""Makes one part of the demo world: its data, its autoencoder, its model, a detector or its CLIP."""

from __future__ import annotations

from pathlib import Path

from resalign.config.digits import DigitsConfig
from resalign.files import empty
from resalign.jobs.digits import DigitsJob
from resalign.running.stage import parse_arguments, run_stage, running, write_json


def main() -> None:
    """Command line of the rules in workflow/rules/digits.smk."""
    arguments = parse_arguments(__doc__, DigitsJob)
    job, part, output = arguments.job, arguments.job.part, arguments.output
    config = DigitsConfig.parse(job.digits, where="digits")
    with running(arguments, resumes="steps", inputs=job.paths()) as attempt:
        empty(output)  # of other settings, or of an attempt that was killed
        if part == "data":
            from resalign.digits.datasets import write_datasets

            write_datasets(config, output)
        elif part == "conjunction":
            from resalign.digits.conjunction import write_conjunction

            write_conjunction(config, output)
        elif part == "autoencoder":
            from resalign.digits.autoencoder import train_autoencoder

            train_autoencoder(config, output, attempt)
        elif part == "model":
            from resalign.digits.generator import train_generator

            train_generator(config, Path(str(job.autoencoder)), output, attempt)
        elif part == "clip":
            from resalign.digits.clip import train_clip

            train_clip(config, output, attempt)
        else:
            from resalign.digits.detectors import train_detector

            write_json(output / "heldout.json", train_detector(config, part, output, attempt))


if __name__ == "__main__":
    run_stage(main)
