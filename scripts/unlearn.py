"""Unlearns the concept with one method and one training seed; writes the changed weights."""

from __future__ import annotations

from pathlib import Path

from resalign.config import registry
from resalign.contracts import Run
from resalign.data.images import read_captioned_images
from resalign.diffusion.loaded_pipeline import load_pipeline
from resalign.diffusion.micro_batches import micro_batches
from resalign.diffusion.precision import training_precision
from resalign.jobs.unlearn import UnlearnJob
from resalign.library.training import unlearned_weights
from resalign.running.stage import parse_arguments, progress_bar, run_stage, running
from resalign.tensors.weights import save_weights
from resalign.tracking import tracked


def main() -> None:
    """Command line of the rule unlearn."""
    arguments = parse_arguments(__doc__, UnlearnJob)
    job, output = arguments.job, arguments.output
    method, config = registry.configured("unlearning", job.method, where=job.label)
    in_parts, computing = micro_batches(job.micro_batch_size), training_precision(job.precision)
    with running(arguments, resumes="steps", inputs=job.paths()) as attempt, in_parts, computing:
        images = {name: read_captioned_images(Path(path), pixels=job.pixels) for name, path in job.images.items()}
        loaded = load_pipeline(
            Path(job.model),
            device=arguments.job.device,
            gradient_checkpointing=job.gradient_checkpointing,
            cuda_graphs=job.cuda_graphs,
        )
        progress = progress_bar(f"unlearn {job.label} seed {arguments.seed}")
        run = Run(arguments.seed, tracked(str(output)), progress=progress, attempt=attempt)
        weights = unlearned_weights(
            loaded,
            method,
            config,
            images,
            run,
            concepts=job.concepts,
            retain_prompts=job.retain_prompts,
            masks=Path(job.masks) if job.masks else None,
            checkpoint=Path(job.checkpoint) if job.checkpoint else None,
        )
        save_weights(output / "weights.safetensors", weights)
        run.history.write(output / "history.csv")


if __name__ == "__main__":
    run_stage(main)
