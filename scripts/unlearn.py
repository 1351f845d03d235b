"""Unlearns the concept with one method and one training seed; writes the changed weights."""

from __future__ import annotations

from pathlib import Path

from resalign.config import registry
from resalign.contracts import Run, UnlearningData, check_architecture
from resalign.data.images import read_captioned_images
from resalign.diffusion.batches import encode
from resalign.diffusion.micro_batches import micro_batches
from resalign.diffusion.models import load_models
from resalign.diffusion.precision import training_precision
from resalign.running.stage import parse_arguments, progress_bar, run_stage, running
from resalign.tensors.weights import save_weights

DATA = ("forget", "retain", "pool")  # image sets of a job


def main() -> None:
    """Command line of the rule unlearn."""
    arguments = parse_arguments(__doc__ or "")
    job, output = arguments.job, arguments.output
    settings = dict(job["method"])
    method = registry.member("unlearning", settings.pop("name"))
    config = method.Config.parse(settings, where=job["label"])
    in_parts, computing = micro_batches(job.get("micro_batch_size")), training_precision(job["precision"])
    inputs = [job[key] for key in ("model", "checkpoint", *DATA) if job[key]]
    with running(arguments, resumes="steps", inputs=inputs) as attempt, in_parts, computing:
        images = {k: read_captioned_images(Path(job[k]), pixels=job["pixels"]) for k in DATA}
        models = load_models(
            Path(job["model"]), device=job["device"], gradient_checkpointing=job.get("gradient_checkpointing", False)
        )
        check_architecture(method, models.architecture.name)
        progress = progress_bar(f"unlearn {job['label']} seed {arguments.seed}")
        run = Run(arguments.seed, progress=progress, attempt=attempt)
        data = UnlearningData(
            **{name: encode(models, images[name], run.generator("encode", name)) for name in images},
            prompts=tuple(job["prompts"]) or tuple(sorted(set(images["forget"].prompts))),
            checkpoint=Path(job["checkpoint"]) if job["checkpoint"] else None,
        )
        weights = method.unlearn(models, data, config, run)
        save_weights(output / "weights.safetensors", weights)
        run.history.write(output / "history.csv")


if __name__ == "__main__":
    run_stage(main)
