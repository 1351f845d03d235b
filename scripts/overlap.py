"""Compares what attacks use with what is held out of them, with unlearning's images and with evaluation."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from resalign.data.images import CaptionedImages, read_captioned_images
from resalign.data.overlap import check_apart, describe, shared_captions, shared_images
from resalign.data.prompts import read_prompt_set
from resalign.running.stage import parse_arguments, run_stage, running, write_json


def main() -> None:
    """Command line of the rule overlap."""
    arguments = parse_arguments(__doc__ or "")
    job = arguments.job

    @functools.cache
    def images(folder: str) -> CaptionedImages:
        return read_captioned_images(Path(folder), pixels=job["pixels"])

    with running(arguments):
        # First, so that a refusal comes before the larger sets are read.
        for label, sets in job["attacks"].items():
            check_apart({key: images(folder) for key, folder in sets.items()}, label=f"attacks.{label}")
        prompts = {name: read_prompt_set(settings, where=settings["path"]) for name, settings in job["prompts"].items()}

        @functools.cache
        def compared(folder: str) -> dict[str, Any]:
            own = images(folder)
            return {
                "set": describe(own, Path(folder)),
                "images": {name: shared_images(own, images(other)) for name, other in job["images"].items()},
                "prompts": {name: shared_captions(own, [p.text for p in listed]) for name, listed in prompts.items()},
            }

        found = {
            label: {key: compared(folder) for key, folder in sets.items() if key != "heldout"}
            for label, sets in job["attacks"].items()
        }
        write_json(arguments.output / "overlap.json", found)


if __name__ == "__main__":
    run_stage(main)
