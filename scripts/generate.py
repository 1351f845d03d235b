"""Makes one image set from a list of prompts by the model before unlearning."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from resalign.config import registry
from resalign.config.closure import import_closure, source_hash
from resalign.data.prompts import Prompt
from resalign.diffusion.images import ImageStore, folder_hash
from resalign.diffusion.loaded_pipeline import load_pipeline
from resalign.diffusion.sampling import fill
from resalign.files import empty
from resalign.jobs.prepare import SETS, PrepareJob
from resalign.running.stage import parse_arguments, progress_bar, run_stage, running


def main() -> None:
    """Command line of the rule generate."""
    arguments = parse_arguments(__doc__, PrepareJob)
    job, output = arguments.job, arguments.output
    member, config = registry.configured(SETS, job.set, where=f"prepared.{job.name}")
    inputs = [getattr(config, key) for key in member.INPUTS]
    with running(arguments, resumes="pieces", inputs=inputs) as attempt:
        store = ImageStore(output / "drawn")
        empty(output, keep=["drawn"])  # of other settings, or of an attempt that was killed
        source = source_hash(import_closure("scripts/generate.py"))
        store.open({"set": job.set, "model": folder_hash(Path(config.model)), "code": source})

        def draw(wanted: Sequence[tuple[Prompt, int]]) -> Iterator[bytes]:
            loaded = load_pipeline(Path(config.model), device=str(arguments.job.device))
            bar = progress_bar(f"generate {job.name}")
            fill(loaded, store, wanted, job.set, partial(attempt.pieces, progress=bar))
            return (store.path(*image).read_bytes() for image in wanted)

        member.generate(config, output, draw)
        shutil.rmtree(store.folder)


if __name__ == "__main__":
    run_stage(main)
