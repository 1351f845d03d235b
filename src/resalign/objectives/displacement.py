"""How far unlearning has moved the weights, and the barrier of the loss on the way.

Source: Siddiqui 2025, arXiv 2505.22310, where resistance to relearning goes with both; there on image classifiers. The
barrier is that of linear mode connectivity: Frankle 2020, arXiv 1912.05671.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

from resalign.diffusion.batches import EncodedImages
from resalign.diffusion.loaded_pipeline import LoadedPipeline, trainable_tensors
from resalign.lazy import torch
from resalign.objectives.denoising import loss_with
from resalign.tensors.params import Params, norm
from resalign.tensors.seeds import generator
from resalign.tensors.steps import DivergenceError

EXAMPLES, POINTS = 32, 11  # of the batch on which the barrier is measured; along the line, both ends included


def distance(start: Params, end: Params) -> torch.Tensor:
    """‖θ − θ₀‖ over all tensors of ``start``, a scalar; its gradient is taken as zero where both are equal."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(end[name] - start[name]) for name in start]))


def barrier(loss: Callable[[Params], float], start: Params, end: Params, points: int = POINTS) -> float:
    """Max over t of L((1 − t)θ₀ + tθ) − ((1 − t)L(θ₀) + tL(θ)): 0 where the line lies nowhere above its chord.

    Args:
        loss: L.
        start: θ₀.
        end: θ.
        points: Equally spaced positions t, 0 and 1 among them.

    Raises:
        DivergenceError: If a loss on the line is not finite.
    """
    positions = [place / (points - 1) for place in range(points)]
    losses = [loss({name: torch.lerp(start[name], end[name], t) for name in start}) for t in positions]
    if not all(map(math.isfinite, losses)):
        raise DivergenceError(f"the loss is not finite on the line from the original weights: {losses}")
    return max(here - ((1 - t) * losses[0] + t * losses[-1]) for t, here in zip(positions, losses, strict=True))


def displacement(
    loaded: LoadedPipeline, weights: Mapping[str, torch.Tensor], retain: EncodedImages
) -> dict[str, float]:
    """‖θ − θ₀‖, its share of ‖θ₀‖, and the barrier, the loss being that of denoising retained images.

    Args:
        loaded: The pipeline before unlearning.
        weights: The changed weights, by their names in a weight file; no name, and all are 0.
        retain: Images that the model should keep. Which of them, their noise and timesteps are the same for every
            model of equal latents.
    """
    tensors = trainable_tensors(loaded.pipeline)
    start = {name: tensors[name].detach() for name in weights}
    end = {name: tensor.to(start[name]) for name, tensor in weights.items()}
    batch = retain.draw_stratified(EXAMPLES, generator("displacement"))
    if not weights:
        return dict.fromkeys(("weight_distance", "relative_distance", "loss_barrier"), 0.0)
    loss, apart = partial(loss_with, loaded=loaded, batch=batch), distance(start, end)
    distances = {"weight_distance": apart.item(), "relative_distance": (apart / norm(start)).item()}
    return {**distances, "loss_barrier": barrier(loss, start, end)}
