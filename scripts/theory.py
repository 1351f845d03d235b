"""Measures one model: how its harmful loss bends, and what real and random displacements of its weights do to it.

Examples, noise, timesteps and random directions are the same for every model and training seed. Weights are the
denoiser's; what an attack has changed besides is counted and left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from resalign.contracts import Run
from resalign.data.images import read_captioned_images
from resalign.diffusion.batches import NoisyBatch, encode
from resalign.diffusion.loaded_pipeline import LoadedPipeline, load_pipeline, trainable_tensors
from resalign.diffusion.parametrisation import named_weights
from resalign.jobs.theory import StateJob
from resalign.lazy import torch
from resalign.objectives.denoising import per_example_error
from resalign.running.stage import parse_arguments, progress_bar, run_stage, running
from resalign.tensors.params import Params
from resalign.tensors.weights import kept_states, load_weights
from resalign.theory.landscape import (
    DisplacementRow,
    FineTuning,
    SharpnessRow,
    SliceRow,
    displacement_rows,
    sharpness_row,
    slice_rows,
)
from resalign.theory.sharpness import FrozenLoss, sharpness

FIXED = Run(seed=0)  # its streams are the same for every model and training seed
ROWS = {"sharpness": SharpnessRow, "displacement": DisplacementRow, "slices": SliceRow}


def main() -> None:
    """Command line of the rule theory_state."""
    import pandas as pd

    arguments = parse_arguments(__doc__, StateJob)
    output = arguments.output
    weights = [arguments.job.weights] if arguments.job.weights else []
    with running(arguments, inputs=[arguments.job.model, arguments.job.forget, *weights]):
        job: StateJob = arguments.job
        config = job.theory
        loaded = load_pipeline(Path(job.model), Path(job.weights) if job.weights else None, device=job.device)
        original = {name: tensor.detach().clone() for name, tensor in trainable_tensors(loaded.pipeline).items()}
        frozen = list(frozen_batches(loaded, job))
        denoiser = loaded.denoiser.double() if config.precision == "float64" else loaded.denoiser
        loss = FrozenLoss([partial(example_losses, denoiser, batch) for batch in frozen])
        point = named_weights(denoiser)
        found = sharpness(
            loss,
            point,
            config.probes,
            FIXED.generator("theory", "probes"),
            mode=config.hessian_products,
            progress=progress_bar(f"theory {job.label} seed {arguments.seed}"),
        )
        rows: dict[str, list[Any]] = {name: [] for name in ROWS}
        rows["sharpness"].append(sharpness_row(job.label, arguments.seed, found))
        for tuning in fine_tunings(job, original, f"{loaded.architecture.denoiser}.", point):
            rows["displacement"] += displacement_rows(loss, point, tuning, found, config)
            if tuning.is_last:
                rows["slices"] += slice_rows(loss, point, tuning, config)
        for name, kind in ROWS.items():
            table = pd.DataFrame([asdict(row) for row in rows[name]], columns=[field.name for field in fields(kind)])
            table.to_csv(output / f"{name}.csv", index=False, float_format="%.8g")


def example_losses(denoiser: torch.nn.Module, batch: NoisyBatch, weights: Params) -> torch.Tensor:
    """L_harm of each example (B,): the negative denoising loss [ResAlign, Eq. 3]."""
    return -per_example_error(denoiser, weights, batch)


def frozen_batches(loaded: LoadedPipeline, job: StateJob) -> Iterator[NoisyBatch]:
    """The batches that L_harm is the mean of, in the precision of the measurement."""
    config = job.theory
    dtype = getattr(torch, config.precision)
    folder, stream = Path(job.forget), FIXED.generator("encode", "forget")
    images = encode(loaded, read_captioned_images(folder, pixels=job.pixels), stream)
    images = replace(images, latents=images.latents.to(dtype), conditioning=images.conditioning.to(dtype))
    for index in range(config.batches):
        yield images.draw_stratified(config.batch_size, FIXED.generator("theory", "batch", index))


def fine_tunings(job: StateJob, original: Params, prefix: str, point: Params) -> Iterator[FineTuning]:
    """Every kept state of every attack that started from this model, as a displacement.

    A state's file is whole: a tensor that it lacks is the model's own.
    """
    for attack, seed, manifest in job.attacks:
        states = kept_states(Path(manifest))
        for steps, path in sorted(states.items()):
            tuned = load_weights(path, original) if path is not None else {}
            moved = {name: tuned[name].to(original[name]) - original[name] for name in tuned}
            yield FineTuning(
                model=job.label,
                attack=attack,
                seed=seed,
                steps=steps,
                is_last=steps == max(states),
                displacement={n: moved.get(prefix + n, torch.zeros_like(t)).to(t) for n, t in point.items()},
                tensors_elsewhere=sum(bool(t.any()) for n, t in moved.items() if not n.startswith(prefix)),
            )


if __name__ == "__main__":
    run_stage(main)
