"""Checks every folder and file of the user's own before any long work begins; loads no weight."""

from __future__ import annotations

from pathlib import Path

from resalign.config import registry
from resalign.contracts import check_architecture
from resalign.data.images import read_captioned_images
from resalign.data.prompts import read_prompts
from resalign.diffusion.architectures import architecture_in
from resalign.diffusion.checkpoints import check_checkpoint
from resalign.diffusion.loaded_pipeline import check_pipeline_folder
from resalign.jobs.check_inputs import CheckInputsJob
from resalign.running.stage import parse_arguments, run_stage, write_json


def main() -> None:
    """Command line of the rule check_inputs."""
    arguments = parse_arguments(__doc__, CheckInputsJob)
    job = arguments.job
    for folder in job.pipelines:
        check_pipeline_folder(Path(folder))
        for family, name in job.members:
            check_architecture(registry.member(family, name), architecture_in(Path(folder))[0].name)
    for folder in job.images:
        read_captioned_images(Path(folder), pixels=job.pixels)
    for path, limit, columns in job.prompts:
        read_prompts(Path(path), limit, columns)
    for checkpoint, pipeline, covers in job.checkpoints:
        check_checkpoint(Path(checkpoint), Path(pipeline), covers)
    write_json(arguments.output / "inputs.json", {"checked": job.plain()})


if __name__ == "__main__":
    run_stage(main)
