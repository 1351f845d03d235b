"""The fine-tuning loop that attacks share, with its settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from pydantic import Field, model_validator

from resalign.attacks._deployed import deployed
from resalign.config.passes import Passes
from resalign.config.strict import ConfigError, Strict
from resalign.contracts import AttackData, Run, Save
from resalign.data.images import DataError
from resalign.diffusion.batches import NoisyBatch, embedded_with
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.lora_files import Lora
from resalign.diffusion.parametrisation import named_weights
from resalign.diffusion.token_embedding import TokenEmbedding, token_embedding
from resalign.lazy import torch
from resalign.objectives.denoising import denoising_loss, loss_with, repeated_loss
from resalign.tensors.losses import loss_at, value_and_gradient
from resalign.tensors.params import Params, detached
from resalign.tensors.steps import apply_gradients

Loss = Callable[[Params, NoisyBatch], "torch.Tensor"]


class StepsConfig(Strict):
    """Number of steps of an attack, and the steps after which it is evaluated [ResAlign, Section 4.1: 200]."""

    steps: int = Field(200, ge=0)
    checkpoints: tuple[int, ...] = Field((), description="steps before the last at which weights are kept too")

    @model_validator(mode="after")
    def _checkpoints_lie_on_the_way(self) -> StepsConfig:
        outside = [step for step in self.checkpoints if not 0 < step < self.steps]
        if outside:
            raise ValueError(f"checkpoints must lie strictly between 0 and steps ({self.steps}), got {outside}")
        return self

    @property
    def image_sets(self) -> dict[str, bool]:
        """Image sets besides ``train`` and ``heldout`` that the attack uses, each with whether it is required."""
        return {}


class FineTuningConfig(StepsConfig):
    """Published: batch 1, learning rate 1e-5 [ResAlign, Section 4.1]; released: AntigoneRandy/ResAlign@14775d3."""

    lr: float = Field(1e-5, gt=0)
    batch_size: int = Field(1, gt=0)
    gradient_accumulation: int = Field(1, gt=0, description="batches whose mean gradient makes one step; released: 4")
    optimizer: Literal["sgd", "adam", "adamw", "adam_8bit", "adamw_8bit"] = Field(
        "adamw", description="those of 8 bit need bitsandbytes"
    )
    weight_decay: float = Field(1e-2, ge=0, description="of adamw, in either precision")
    schedule: Literal["constant", "cosine"] = "constant"
    final_lr: float = Field(1e-6, ge=0, description="where the cosine schedule ends")
    max_grad_norm: float | None = Field(1.0, gt=0)
    flips: bool = Field(False, description="horizontal, of every second training image on average; released: true")
    latents_sampled: Literal["once", "anew"] = Field(
        "once", description="of training images, from the autoencoder's posterior; released: anew at each access"
    )
    heldout_batch_size: int = Field(
        64, gt=0, description="(image, noise, timestep) of the held-out loss, the same for all"
    )

    @property
    def encoding(self) -> dict[str, Any]:
        """How images to train on are encoded, as arguments of :func:`resalign.diffusion.batches.encode`."""
        return {"with_flips": self.flips, "sampled": self.latents_sampled}

    @property
    def denoiser_passes(self) -> Passes | None:
        """Of a step; None where nobody counts them."""
        return Passes(gradient=self.batch_size * self.gradient_accumulation)


@dataclass(frozen=True)
class Tuning:
    """The variables that an attack trains, and the weights and loss that they determine.

    Attributes:
        attack: The attack's name, for errors.
        variables: Trained tensors by name: leaves, changed in place.
        weights: Maps variables to the denoiser's changed weights, by its names; differentiable. The default takes the
            variables for the weights.
        loss: Maps the denoiser's changed weights and a batch to the loss; None for the denoising loss.
        text_weights: Maps variables to the text encoders' changed weights, named ``component.parameter``;
            differentiable. None leaves text encoders, and with them every prompt's embedding, unchanged.
        lora: Maps variables to the LoRA that users exchange, for an attack that trains one.
        streams: Random streams that ``loss`` draws from.
        measured: Quantities that ``loss`` measured on its latest batch, recorded with the loss.
    """

    attack: str
    variables: Params
    weights: Callable[[Params], Params] = lambda variables: variables
    loss: Loss | None = None
    text_weights: Callable[[Params], Params] | None = None
    lora: Callable[[Params], Lora] | None = None
    streams: Mapping[str, torch.Generator] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)

    def weights_of(self, _: Params, variables: Params) -> Params:
        """``weights``, as a map of :func:`resalign.tensors.losses.loss_at`."""
        return self.weights(variables)


def all_weights(loaded: LoadedPipeline) -> dict[str, torch.Tensor]:
    """The variables of full-parameter fine-tuning: every weight of the denoiser."""
    return detached(named_weights(loaded.denoiser), requires_grad=True)


def fine_tune(
    loaded: LoadedPipeline, data: AttackData, config: FineTuningConfig, run: Run, save: Save, tuning: Tuning
) -> None:
    """Trains an attack's variables and saves the weights at every checkpoint and at the end.

    All attacks of one seed see the same examples at the same noise, in the same order.

    Args:
        loaded: The model under attack; its own weights are left alone.
        data: Training images, and held-out images whose loss measures learning.
        config: The attack's settings.
        run: Seed and records; ``heldout_loss`` of the model that is kept is recorded at step 0, at every checkpoint and
            at the end.
        save: See :class:`resalign.contracts.Save`.
        tuning: The trained variables with their weights and loss.

    Raises:
        DivergenceError: If a loss or gradient is not finite.
        ConfigError: If the optimizer's library is not installed.
    """
    variables, stream = tuning.variables, run.generator("attack", "full")
    optimizer = optimizer_of(config, list(variables.values()))
    # The same examples for every model and seed, so that held-out losses can be compared.
    heldout = data.heldout.draw_stratified(config.heldout_batch_size, Run(seed=0).generator("attack", "heldout"))
    text_weights = partial(tuning.text_weights, variables) if tuning.text_weights else dict[str, torch.Tensor]

    def record_heldout(step: int, changed: Params) -> None:
        loss = loss_with(changed, loaded, heldout, embeds=tuning.text_weights is not None)
        run.history.record(step, heldout_loss=loss)

    def keep(step: int) -> None:
        with torch.no_grad():
            own = {**loaded.named(detached(tuning.weights(variables))), **detached(text_weights())}
        changed = deployed(loaded, data.unlearned, own)
        record_heldout(step, changed)
        save(step, changed, tuning.lora(detached(variables)) if tuning.lora else None)

    if config.steps:
        record_heldout(0, deployed(loaded, data.unlearned, {}))  # of the model as it is, wherever the variables start
    held: dict[str, Any] = {"variables": variables, "optimizer": optimizer, "stream": stream, **tuning.streams}
    for step in run.steps(range(1, config.steps + 1), **held):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        optimizer.zero_grad()
        loss = 0.0
        for _ in range(config.gradient_accumulation):
            batch = data.train.draw(config.batch_size, stream)
            if tuning.text_weights:
                batch = embedded_with(loaded, text_weights(), batch)
            loss += _backpropagated(loaded, tuning, batch, config.gradient_accumulation)
        where = f"attack '{tuning.attack}' at step {step} (loss {loss:.4g})"
        apply_gradients(optimizer, config.max_grad_norm, what=where)
        run.history.record(step, train_loss=loss, **tuning.measured)
        if step in config.checkpoints:
            keep(step)
    keep(config.steps)


def _backpropagated(loaded: LoadedPipeline, tuning: Tuning, batch: NoisyBatch, batches: int) -> float:
    """Adds a batch's share of a step to the variables' gradients, and returns that of the loss.

    The denoising loss is the same computation at every step, and so does without autograd where it is recorded.
    """
    variables = tuning.variables
    if tuning.loss or tuning.text_weights:
        loss_of = tuning.loss or partial(denoising_loss, loaded.denoiser)
        part = loss_of(tuning.weights(variables), batch) / batches
        part.backward()
        return part.item()
    part, slope = value_and_gradient(
        loss_at(repeated_loss(_share, loaded, [batch], batches), tuning.weights_of), variables, fill=False
    )
    for name in [*slope]:
        variable, own = variables[name], slope.pop(name)
        if variable.grad is not None:
            variable.grad.add_(own)
        elif own.stride() == variable.stride():
            variable.grad = own
        else:  # as autograd lays it out: its norm is a sum in this order
            variable.grad = torch.empty_like(variable, requires_grad=False).copy_(own)
    return part.item()


def _share(denoiser: torch.nn.Module, weights: Params, batch: NoisyBatch, batches: float) -> torch.Tensor:
    return denoising_loss(denoiser, weights, batch) / batches


def trained_token(loaded: LoadedPipeline, data: AttackData, token: str) -> TokenEmbedding:
    """The embedding of a token that an attack trains.

    Raises:
        ConfigError: If the token is not one entry of the vocabulary.
        DataError: If no caption of ``train`` or ``heldout`` has it.
    """
    found = token_embedding(loaded, token)
    for key, images in {"train": data.train, "heldout": data.heldout}.items():
        if not found.is_in(images.prompts):
            raise DataError(
                f"{key}: no caption has the token '{token}' whose embedding is trained (the first is "
                f"'{images.prompts[0]}'); write it into the captions, or set token to a rare word that they have"
            )
    return found


def learning_rate(config: FineTuningConfig, step: int) -> float:
    """The learning rate at a step, counted from 1."""
    if config.schedule == "constant" or config.steps == 1:
        return config.lr
    progress = (step - 1) / (config.steps - 1)
    return config.final_lr + (config.lr - config.final_lr) * (1 + math.cos(math.pi * progress)) / 2


def optimizer_of(config: FineTuningConfig, variables: list[torch.Tensor]) -> torch.optim.Optimizer:
    """The optimizer that the settings name.

    Raises:
        ConfigError: If it is one of 8 bit, and bitsandbytes is not installed.
    """
    classes: Any = torch.optim
    if config.optimizer.endswith("_8bit"):
        try:
            import bitsandbytes
        except ImportError as error:
            raise ConfigError(
                f"optimizer '{config.optimizer}' needs bitsandbytes ({error}); install it, or take 'adam' or 'adamw'"
            ) from None
        classes = bitsandbytes.optim
    name = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "adam_8bit": "Adam8bit", "adamw_8bit": "AdamW8bit"}
    decay = {"weight_decay": config.weight_decay} if config.optimizer.startswith("adamw") else {}
    optimizer: torch.optim.Optimizer = getattr(classes, name[config.optimizer])(variables, lr=config.lr, **decay)
    return optimizer
