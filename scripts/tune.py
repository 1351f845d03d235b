"""Searches a method's own fields with one searcher and one seed; writes what was tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from resalign.config import registry
from resalign.config.tuning import SEARCHERS, costs_of
from resalign.contracts import Run
from resalign.data.images import read_captioned_images
from resalign.diffusion.loaded_pipeline import load_pipeline
from resalign.diffusion.micro_batches import micro_batches
from resalign.diffusion.precision import training_precision
from resalign.jobs.tune import TuneJob
from resalign.library.training import unlearning_data
from resalign.running.stage import parse_arguments, progress_bar, run_stage, running
from resalign.tuning.search import Problem, Search
from resalign.tuning.training import Training
from resalign.tuning.validation import Config, Validation, held_out


def main() -> None:
    """Command line of the rule search."""
    arguments = parse_arguments(__doc__, TuneJob)
    job, output, seed = arguments.job, arguments.output, arguments.seed
    method, settings = registry.configured("unlearning", job.method, where=job.label)
    judge = Config.parse(job.tuning.validation, where="tuning.validation")
    in_parts, computing = micro_batches(job.micro_batch_size), training_precision(job.precision)
    with running(arguments, resumes="steps", inputs=job.paths()) as attempt, in_parts, computing:
        images = {name: read_captioned_images(Path(path), pixels=job.pixels) for name, path in job.images.items()}
        loaded = load_pipeline(
            Path(job.model),
            device=arguments.job.device,
            gradient_checkpointing=job.gradient_checkpointing,
            cuda_graphs=job.cuda_graphs,
        )
        run = Run(seed, attempt=attempt, progress=progress_bar(f"{job.searcher} search seed {seed}"))
        words: dict[str, Any] = {"concepts": job.concepts, "retain_prompts": job.retain_prompts}
        masks = Path(job.masks) if job.masks else None
        data = unlearning_data(loaded, method, settings, images, run, masks=masks, **words)
        training_data, validation_data = held_out(data, job.tuning.held_out)
        problem = Problem(
            Training(loaded, method, job.method, training_data, seed),
            Validation(loaded, validation_data, judge, seed),
            job.tuning,
            costs_of(settings, judge),
            seed,
        )
        search: Search = registry.member(SEARCHERS, job.searcher).Search(problem)
        for position in run.steps(range(search.rounds), phase="search", search=search):
            search.round(position)
        search.table().to_csv(output / "trials.csv", index=False, float_format="%.8g")


if __name__ == "__main__":
    run_stage(main)
