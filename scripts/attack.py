"""Fine-tunes one model on one data set, as a downstream user would; keeps its weights along the way."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from resalign.config import registry
from resalign.contracts import Run
from resalign.data.images import read_captioned_images
from resalign.data.overlap import check_apart, describe
from resalign.data.prompts import Prompt, read_prompts, write_prompts
from resalign.diffusion.loaded_pipeline import load_pipeline, trainable_tensors
from resalign.diffusion.lora_files import Lora
from resalign.diffusion.micro_batches import micro_batches
from resalign.diffusion.precision import training_precision
from resalign.jobs.attack import AttackJob
from resalign.lazy import torch
from resalign.library.training import run_attack
from resalign.running.stage import parse_arguments, progress_bar, run_stage, running, write_json
from resalign.tensors.weights import kept_states, load_weights, save_weights, tensor_shapes
from resalign.tracking import tracked


def main() -> None:
    """Command line of the rule attack."""
    arguments = parse_arguments(__doc__, AttackJob)
    job, output = arguments.job, arguments.output
    member, config = registry.configured("attacks", job.attack, where=job.label)
    in_parts, computing = micro_batches(job.micro_batch_size), training_precision(job.precision)
    weights = starting_weights(job)
    inputs: list[str | Path] = [*job.paths(), *([weights] if weights else [])]
    with running(arguments, resumes="steps", inputs=inputs) as attempt, in_parts, computing:
        images = {name: read_captioned_images(Path(path), pixels=job.pixels) for name, path in job.images.items()}
        check_apart(images, label=job.label)
        prompts = read_prompts(*job.prompts.arguments(job.prompts.path)) if job.prompts else []
        loaded = load_pipeline(
            Path(job.model),
            None if job.starts_from == "base" else weights,
            start=partial(member.start, config) if hasattr(member, "start") else None,
            device=arguments.job.device,
            gradient_checkpointing=job.gradient_checkpointing,
            cuda_graphs=job.cuda_graphs,
        )
        unlearned = {}
        if weights and job.starts_from == "base":
            unlearned = load_weights(weights, trainable_tensors(loaded.pipeline))
        progress = progress_bar(f"attack {job.label} seed {arguments.seed}")
        run = Run(arguments.seed, tracked(str(output)), progress=progress, attempt=attempt)

        # A checkpoint is whole: what unlearning changed and the attack does not train, a text encoder say, is in it.
        inherited = tensor_shapes(weights) if weights else {}

        def save(
            step: int,
            changed: Mapping[str, torch.Tensor],
            lora: Lora | None = None,
            attacked: Sequence[Prompt] = (),
            /,
        ) -> None:
            if changed:
                before = trainable_tensors(loaded.pipeline)
                run.kept[str(step)] = f"step-{step}.safetensors"
                save_weights(output / run.kept[str(step)], {**{name: before[name] for name in inherited}, **changed})
            else:  # the weights that it started from, where they lie
                run.kept[str(step)] = os.path.relpath(weights, output) if weights else None
            if lora:
                lora.write(output / f"step-{step}-lora")
            if attacked:
                write_prompts(output / f"step-{step}-prompts.csv", attacked)

        run_attack(loaded, member, config, images, run, save, prompts=prompts, unlearned=unlearned)
        run.history.write(output / "history.csv")
        described = {name: describe(found, Path(job.images[name])) for name, found in images.items()}
        write_json(output / "data.json", described)
        write_json(output / "checkpoints.json", run.kept)


def starting_weights(job: AttackJob) -> Path | None:
    """The unlearned model's weights, the last ones that another attack has kept, or None for the model's own."""
    if not job.weights:
        return None
    path = Path(job.weights)
    if path.suffix != ".json":
        return path
    states = kept_states(path)
    return states[max(states)]


if __name__ == "__main__":
    run_stage(main)
