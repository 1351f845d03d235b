"""Compares what attacks use with what is held out of them, with unlearning's images and evaluation, and these two."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resalign.data.images import CaptionedImages, read_captioned_images
from resalign.data.overlap import check_apart, check_captions, describe, shared_captions, shared_images
from resalign.data.prompts import read_prompts
from resalign.jobs.overlap import OverlapJob
from resalign.running.stage import parse_arguments, run_stage, running, write_json


def main() -> None:
    """Command line of the rule overlap."""
    arguments = parse_arguments(__doc__, OverlapJob)
    job = arguments.job

    @functools.cache
    def images(folder: str) -> CaptionedImages:
        return read_captioned_images(Path(folder), pixels=job.pixels)

    with running(arguments):
        # First, so that a refusal does not wait for the larger sets.
        for label, sets in job.attacks.items():
            check_apart({key: images(folder) for key, folder in sets.items()}, label=f"attacks.{label}")
        listed = {name: read_prompts(*of.arguments(of.path)) for name, of in job.prompts.items()}

        def tested(captions: Sequence[str]) -> dict[str, Any]:
            return {name: shared_captions(captions, [p.text for p in prompts]) for name, prompts in listed.items()}

        @functools.cache
        def compared(folder: str) -> dict[str, Any]:
            own, others = images(folder), {**job.unlearning, **job.evaluation}
            return {
                "set": describe(own, Path(folder)),
                "images": {name: shared_images(own, images(other)) for name, other in others.items()},
                "prompts": tested(own.prompts),
            }

        found = {
            label: {key: compared(folder) for key, folder in sets.items() if key != "heldout"}
            for label, sets in job.attacks.items()
        }
        unlearning = {name: tested(images(folder).prompts) for name, folder in job.unlearning.items()}
        words = {name: tested(texts) for name, texts in job.words.items()}
        attacking = {
            f"attacks.{label}.{key}": of["prompts"] for label, sets in found.items() for key, of in sets.items()
        }
        check_captions({**unlearning, **words, **attacking}, job.apart)
        write_json(arguments.output / "overlap.json", {"attacks": found, "unlearning": unlearning})


if __name__ == "__main__":
    run_stage(main)
