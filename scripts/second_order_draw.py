"""Holds every hypergradient estimator against one draw's finite fine-tuning of a model, and sweeps γ; writes tables.

In float64, so that estimators are compared and not their rounding. diffusers 0.42 takes one softmax,
AttentionPooling's, in float32 all the same; it limits how short a central difference can be, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from resalign.bilevel.hypergradient import ExampleLoss
from resalign.contracts import Run
from resalign.data.images import read_captioned_images
from resalign.diffusion.batches import EncodedImages, encode
from resalign.diffusion.loaded_pipeline import LoadedPipeline, load_pipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.jobs.second_order import TABLES, DrawJob
from resalign.lazy import torch
from resalign.objectives.denoising import denoising_loss, harmful_loss
from resalign.objectives.simulation import by_example
from resalign.running.stage import parse_arguments, run_stage, running
from resalign.tensors.losses import Loss
from resalign.theory.horizon import Config as HorizonConfig
from resalign.theory.horizon import horizon_draw
from resalign.theory.second_order import Config, audit_draw


def main() -> None:
    """Command line of the rule second_order_draw."""
    import pandas as pd

    arguments = parse_arguments(__doc__, DrawJob)
    job, output, draw = arguments.job, arguments.output, arguments.seed
    config = Config.parse(job.audit, where="second order audit")
    horizon = HorizonConfig.parse(job.horizon, where="horizon")
    with running(arguments, inputs=job.paths()):
        loaded = load_pipeline(Path(job.model), device=arguments.job.device)
        folders = {"forget": job.forget, "pool": job.pool}
        data = {name: encoded(loaded, Path(folder), job.pixels, name) for name, folder in folders.items()}
        denoiser = loaded.denoiser.double()
        start = named_weights(denoiser)
        run = Run(draw)
        inner, outer = (
            data[name].draw_stratified(config.batch_size, run.generator("second order", name))
            for name in ("pool", "forget")
        )
        harmful = partial(harmful_loss, denoiser, batch=outer)
        audit = audit_draw(harmful, partial(denoising_loss, denoiser, batch=inner), start, config, draw)
        pool = partial(drawn_loss, denoiser, data["pool"], run.generator("second order", "horizon"))
        compared = horizon_draw(harmful, pool, start, horizon, draw)
        tables: tuple[Sequence[Any], ...] = (*audit, *compared)
        for name, rows in zip(TABLES, tables, strict=True):
            written = pd.DataFrame([asdict(row) for row in rows])
            written.to_csv(output / f"{name}.csv", index=False, float_format="%.8g")


def drawn_loss(
    denoiser: torch.nn.Module, images: EncodedImages, stream: torch.Generator, batch_size: int
) -> tuple[Loss, tuple[ExampleLoss, ...]]:
    """L_FT on a new batch, whole and by example."""
    batch = images.draw_stratified(batch_size, stream)
    return partial(denoising_loss, denoiser, batch=batch), by_example(denoiser, batch)


def encoded(loaded: LoadedPipeline, folder: Path, pixels: int, name: str) -> EncodedImages:
    """An image folder in latent space, in float64; the autoencoder itself is the pipeline's own."""
    images = encode(loaded, read_captioned_images(folder, pixels=pixels), Run(0).generator("encode", name))
    return replace(images, latents=images.latents.double(), conditioning=images.conditioning.to(torch.float64))


if __name__ == "__main__":
    run_stage(main)
