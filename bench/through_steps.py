"""What the derivative through every simulated step is worth: along it, and along first order's, by one outer step.

    python bench/through_steps.py results/runs/unlearn/unrolled-80-*/seed-10 --draws 3

A finished run of `resalign` with `through: steps`. For each draw, at the original weights and at those that the run
ended with, in float64 by exact products: every weight moves by the outer rate along the derivative's sign, as Adam
would have it. Printed is by how much the loss of the concept's images after fine-tuning rises, with the draw's own
batches and in the mean over others with other images; and the cosine of the derivative in float32 by the run's own kind
of products.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from resalign.bilevel.adaptation import adapt
from resalign.bilevel.unrolled import unrolled_hypergradient
from resalign.config import registry
from resalign.contracts import Run
from resalign.data.images import read_captioned_images
from resalign.diffusion.batches import EncodedImages, encode
from resalign.diffusion.loaded_pipeline import load_pipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.objectives.denoising import denoising_loss
from resalign.objectives.simulation import Simulation
from resalign.tensors.losses import Loss, gradient_at
from resalign.tensors.params import Params, add, dot, norm

OTHERS, IMAGES = 3, 16  # draws that a derivative has not seen, and concept images of each


def main() -> None:
    """Measures every draw at both weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run; its inputs are looked for in the present folder")
    parser.add_argument("--draws", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    job = json.loads((arguments.run / "run.json").read_bytes())["job"]
    _, settings = registry.configured("unlearning", job["method"], where=job["label"])
    world = World(job, settings)
    changed = load_file(arguments.run / "weights.safetensors")
    after = {n: changed.get(f"{world.prefix}.{n}", tensor) for n, tensor in world.original.items()}
    print("| weights | draw | T | own batches: steps | first order | other batches: steps | first order | cosine |")
    print("|---|---|---|---|---|---|---|---|")
    for name, theta in (("original", world.original), ("unlearned", after)):
        for index in range(arguments.draws):
            print(f"| {name} | {index} | {world.measured(theta, index)} |", flush=True)


class World:
    """The run's model, images and settings."""

    def __init__(self, job: dict[str, Any], settings: Any) -> None:
        """Loads and encodes."""
        self.loaded, self.settings = load_pipeline(Path(job["model"]), device="cpu"), settings
        self.prefix, self.original = self.loaded.architecture.denoiser, named_weights(self.loaded.denoiser)
        self.images: dict[str, EncodedImages] = {}
        for name in ("forget", "retain", "pool"):
            images = read_captioned_images(Path(job[name]), pixels=job["pixels"])
            self.images[name] = encode(self.loaded, images, Run(0).generator("encode", name))

    def of(self, dtype: torch.dtype) -> dict[str, EncodedImages]:
        """The images, for networks of a precision."""
        self.loaded.denoiser.to(dtype)
        parts = self.images.items()
        return {n: replace(x, latents=x.latents.to(dtype), conditioning=x.conditioning.to(dtype)) for n, x in parts}

    def drawn(self, key: int, dtype: torch.dtype, images: int) -> tuple[Simulation, Sequence[Loss], Loss]:
        """A simulated user, the loss of each of its steps, and the concept's loss."""
        data, run = self.of(dtype), Run(key)
        streams = run.generator("draw"), run.generator("fixed data")
        user = Simulation(self.loaded, data["pool"], data["retain"], self.settings.simulation, *streams, None)
        losses = [user._objective() for _ in range(user.steps)]
        batch = data["forget"].draw(images, run.generator("concept"))
        return user, losses, partial(denoising_loss, self.loaded.denoiser, batch=batch)

    def derivative(self, theta: Params, key: int, dtype: torch.dtype, mode: Any) -> tuple[Params, Params]:
        """Through every step, and first order's, in float64."""
        user, losses, outer = self.drawn(key, dtype, self.settings.batch_size)
        start, how = {n: tensor.to(dtype) for n, tensor in theta.items()}, {"lr": user.lr, "steps": user.steps}
        optimizer: Any = user.optimizer
        tuned, found = unrolled_hypergradient(outer, losses, start, optimizer=optimizer, mode=mode, **how)
        return tuple({n: t.double() for n, t in x.items()} for x in (found, gradient_at(outer, tuned)))  # type: ignore[return-value]

    def measured(self, theta: Params, index: int) -> str:
        """One row."""
        theta = {n: tensor.double() for n, tensor in theta.items()}
        exact, first = self.derivative(theta, index, torch.float64, "exact")
        low, _ = self.derivative(theta, index, torch.float32, self.settings.hessian_products)
        own = [self.drawn(index, torch.float64, self.settings.batch_size)]
        others = [self.drawn(1000 + OTHERS * index + k, torch.float64, IMAGES) for k in range(OTHERS)]
        rises = []
        for users in (own, others):
            before = tuned_loss(users, theta)
            for slope in (exact, first):
                up = {n: tensor.sign() for n, tensor in slope.items()}
                rises.append(f"{tuned_loss(users, add(theta, up, self.settings.lr)) - before:+.4f}")
        cosine = float(dot(low, exact)) / (norm(low) * norm(exact))
        return " | ".join([str(own[0][0].steps), *rises, f"{cosine:.4f}"])


def tuned_loss(users: Sequence[tuple[Simulation, Sequence[Loss], Loss]], theta: Params) -> float:
    """The concept's loss after fine-tuning, in the mean over users."""
    found = []
    for user, losses, outer in users:
        tuned, _ = adapt(
            losses.__getitem__,
            theta,
            lr=user.lr,
            steps=user.steps,
            optimizer=user.optimizer,
        )
        with torch.no_grad():
            found.append(outer(tuned).item())
    return sum(found) / len(found)


if __name__ == "__main__":
    main()
