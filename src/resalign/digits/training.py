"""How every network of the demo world is trained: its random streams, and AdamW on a one-cycle learning rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from resalign.config.digits import DigitsConfig
from resalign.lazy import torch
from resalign.running.attempt import Attempt
from resalign.running.stage import progress_bar
from resalign.tensors.seeds import derive_seed
from resalign.tensors.steps import clipped_step

Descend = Callable[["torch.Tensor"], float]


def random_stream(config: DigitsConfig, *purpose: str) -> np.random.Generator:
    """NumPy draws that are named by what they are for."""
    return np.random.default_rng(derive_seed("digits", *purpose, config.seed))


def seeded(config: DigitsConfig, *purpose: str) -> np.random.Generator:
    """The stream of a training, with torch's own draws seeded alike."""
    torch.manual_seed(derive_seed("digits", *purpose, config.seed))
    return random_stream(config, *purpose)


def one_cycle(
    parameters: Iterable[torch.nn.Parameter],
    settings: Any,
    attempt: Attempt,
    name: str,
    *,
    phase: str = "steps",
    weight_decay: float = 1e-2,
    warm_up: float = 0.3,
    max_norm: float | None = 1.0,
    **held: Any,
) -> Iterator[Descend]:
    """The steps of a training; each gives the function that minimises a loss by one step of AdamW.

    Args:
        parameters: What is trained.
        settings: Has ``steps`` and the largest learning rate ``lr``.
        attempt: Saves the training's state and goes on from it.
        name: Of the network, for the progress bar and errors.
        phase: Name of the loop, where a network has several.
        weight_decay: Of AdamW.
        warm_up: Share of the steps in which the learning rate rises.
        max_norm: Largest norm of the gradient; None for any.
        held: What else a step changes.
    """
    trained = list(parameters)
    optimizer = torch.optim.AdamW(trained, lr=settings.lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.lr, total_steps=settings.steps, pct_start=warm_up
    )

    def descend(loss: torch.Tensor) -> float:
        norm = clipped_step(optimizer, loss, max_norm, what=f"the training of {name}")
        schedule.step()
        return norm

    held |= {"optimizer": optimizer, "schedule": schedule}
    for _ in attempt.steps(range(settings.steps), phase=phase, progress=progress_bar(name), **held):
        yield descend
