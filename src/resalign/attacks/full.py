"""Full-parameter fine-tuning on the denoising loss, as a downstream user of a released model does it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from pydantic import Field, model_validator

from resalign.config.strict import Strict
from resalign.contracts import AttackData, Run
from resalign.diffusion.models import Models
from resalign.diffusion.parametrisation import named_weights
from resalign.lazy import torch
from resalign.objectives.denoising import denoising_loss
from resalign.tensors.named import Named, detached
from resalign.tensors.steps import clipped_step


class Config(Strict):
    """Published: 200 steps, batch 1, learning rate 1e-5 [ResAlign, Section 4.1]."""

    steps: int = Field(200, ge=0)
    checkpoints: tuple[int, ...] = Field((), description="steps before the last at which weights are kept too")
    lr: float = Field(1e-5, gt=0)
    batch_size: int = Field(1, gt=0)
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    weight_decay: float = Field(1e-2, ge=0, description="of adamw")
    schedule: Literal["constant", "cosine"] = "constant"
    final_lr: float = Field(1e-6, ge=0, description="where the cosine schedule ends")
    max_grad_norm: float | None = Field(1.0, gt=0)
    heldout_batch_size: int = Field(
        64, gt=0, description="(image, noise, timestep) of the held-out loss, the same for all"
    )

    @model_validator(mode="after")
    def _checkpoints_lie_on_the_way(self) -> Config:
        outside = [step for step in self.checkpoints if not 0 < step < self.steps]
        if outside:
            raise ValueError(f"checkpoints must lie strictly between 0 and steps ({self.steps}), got {outside}")
        return self


def attack(models: Models, data: AttackData, config: Config, run: Run, save: Callable[[int, Named], None]) -> None:
    """Fine-tunes all weights of the denoiser, keeping them at every checkpoint and at the end.

    Args:
        models: The model under attack.
        data: What it is fine-tuned on, and the held-out images whose loss tells whether it learns.
        config: The attack.
        run: Seed and records; ``heldout_loss`` is recorded at step 0, at every checkpoint and at the end.
        save: Called with (step, weights by their names in a weight file).
    """
    variables = detached(named_weights(models.denoiser), requires_grad=True)
    optimizer = _optimizer(config, list(variables.values()))
    stream = run.generator("attack", "full")
    # The same examples for every model and seed, so that held-out losses can be compared.
    heldout = data.heldout.draw_stratified(config.heldout_batch_size, Run(seed=0).generator("attack", "heldout"))

    def record_heldout(step: int) -> None:
        with torch.no_grad():
            run.history.record(step, heldout_loss=denoising_loss(models.denoiser, variables, heldout).item())

    record_heldout(0)
    for step in run.steps(range(1, config.steps + 1), variables=variables, optimizer=optimizer, stream=stream):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        loss = denoising_loss(models.denoiser, variables, data.train.draw(config.batch_size, stream))
        clipped_step(optimizer, loss, config.max_grad_norm, what=f"attack 'full' at step {step}")
        run.history.record(step, train_loss=loss.item())
        if step in config.checkpoints:
            record_heldout(step)
            save(step, models.named(detached(variables)))
    if config.steps:
        record_heldout(config.steps)
    save(config.steps, models.named(detached(variables)))


def learning_rate(config: Config, step: int) -> float:
    """The learning rate at a step, counted from 1."""
    if config.schedule == "constant" or config.steps == 1:
        return config.lr
    progress = (step - 1) / (config.steps - 1)
    return config.final_lr + (config.lr - config.final_lr) * (1 + math.cos(math.pi * progress)) / 2


def _optimizer(config: Config, variables: list[torch.Tensor]) -> torch.optim.Optimizer:
    if config.optimizer == "sgd":
        return torch.optim.SGD(variables, lr=config.lr)
    if config.optimizer == "adam":
        return torch.optim.Adam(variables, lr=config.lr)
    return torch.optim.AdamW(variables, lr=config.lr, weight_decay=config.weight_decay)
