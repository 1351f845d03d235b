"""IMMA: immunises a model against low-rank fine-tuning on a concept, by turns with an adversary who fine-tunes it.

Source: Zheng 2024, arXiv 2311.18815, Algorithm 1; optimizers and sizes as released. It usually starts from an erased
model (``base``). First order: the adversary's steps are not differentiated through. Nothing preserves other concepts.

Deviations: the adversary trains on one half of the concept's images and the model on the other, where the release has
one set for both. A step is one descent of the adversary and one ascent of the model: two batches of the release, whose
50 passes over 20 images are 500 steps. The release's re-initialisation of the adversary changes nothing, because the
saved state is an alias of the present one; ``restart`` re-initialises it, with its optimizer.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from resalign.contracts import Run, UnlearningData
from resalign.diffusion.batches import EncodedImages
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import Scope, lora, select
from resalign.lazy import torch
from resalign.objectives.denoising import denoising_loss, harmful_loss
from resalign.tensors.params import Params, detached, gradient
from resalign.tensors.steps import clipped_step
from resalign.unlearning._base import ComposedConfig, changed_weights, unlearned
from resalign.unlearning._descent import DescentConfig, Logged, descend


class Config(ComposedConfig, DescentConfig):
    """Published defaults: AdamW, rate 1e-4 of the adversary, 1e-5 of the model."""

    scope: Scope = "attention"
    steps: int = Field(500, ge=0, description="ascents of the model, each after a descent of the adversary")
    lr: float = Field(1e-5, gt=0)
    optimizer: Literal["adam", "adamw", "sgd"] = Field("adamw", description="of the model and of the adversary")
    weight_decay: float = Field(1e-2, ge=0)
    max_grad_norm: float | None = Field(1.0, gt=0, description="of either gradient; null for none")
    batch_size: int = Field(1, gt=0)
    adversary: Literal["lora", "none"] = Field("lora", description="none: plain ascent, the release's baseline `max`")
    adversary_lr: float = Field(1e-4, ge=0)
    adversary_rank: int = Field(4, gt=0)
    restart: int | None = Field(None, gt=0, description="steps after which the adversary begins anew; null for never")
    truncation: float | None = Field(None, gt=0, description="cap of the concept's error; null for none, as published")


class Adversary:
    """A user who trains a low-rank change of the present model's attention on images of the concept.

    Attributes:
        held: What its steps change.
    """

    def __init__(
        self, loaded: LoadedPipeline, images: EncodedImages, config: Config, weights: Params, run: Run
    ) -> None:
        """Initialises the low-rank change, whose second factor is zero."""
        self._denoiser, self._images, self._config = loaded.denoiser, images, config
        self._adapted = lora(weights, config.adversary_rank)
        self._initial = self._adapted.initial(weights, run.generator("imma", "adversary", "initial"))
        self._variables = detached(self._initial, requires_grad=True)
        # model_copy validates nothing: a rate of 0 is an adversary who learns nothing.
        self._optimizer = config.model_copy(update={"lr": config.adversary_lr}).optimizer_of(self._variables)
        self._stream, self._steps = run.generator("imma", "adversary"), {"taken": 0}
        self.held = {
            "adversary": self._variables,
            "adversary_optimizer": self._optimizer,
            "adversary_stream": self._stream,
            "adversary_steps": self._steps,
        }

    def step(self, weights: Params) -> tuple[dict[str, torch.Tensor], float]:
        """One step of the adversary against weights that stay as they are.

        Returns:
            The weights with the adversary's change, differentiable in them alone, and its loss before the step.
        """
        config, taken = self._config, self._steps["taken"]
        if config.restart and taken % config.restart == 0:
            with torch.no_grad():
                for name, variable in self._variables.items():
                    variable.copy_(self._initial[name])
            self._optimizer.state.clear()
        frozen = {name: tensor.detach() for name, tensor in weights.items()}
        batch = self._images.draw(config.batch_size, self._stream)
        loss = denoising_loss(self._denoiser, self._adapted.weights(frozen, self._variables), batch)
        clipped_step(self._optimizer, loss, config.max_grad_norm, what=f"imma's adversary at step {taken}")
        self._steps["taken"] = taken + 1
        return self._adapted.weights(weights, detached(self._variables)), loss.item()


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Algorithm 1; the result is the model without the adversary's change.

    Returns:
        The changed weights, by their names in a weight file.

    Raises:
        DivergenceError: If a gradient is not finite.
    """
    start, held = unlearned(loaded, data, config.base, run)
    attacked, immunised = data.forget.halves()
    adversary = Adversary(loaded, attacked, config, start, run) if config.adversary == "lora" else None

    def ascent(weights: Params, variables: Params, stream: torch.Generator) -> tuple[Params, Logged]:
        logged = {}
        if adversary:  # φ ← φ − η_φ∇_φ L(θ, φ) [Alg. 1]
            weights, logged["adversary_loss"] = adversary.step(weights)
        # θ ← θ + η_θ∇_θ L(θ, φ) [Alg. 1]
        batch = immunised.draw(config.batch_size, stream)
        loss = harmful_loss(loaded.denoiser, weights, batch, config.truncation)
        return gradient(loss, variables), {"neg_harmful_denoising_loss": loss.item(), **logged}

    held |= adversary.held if adversary else {}
    trained = descend(start, select(start, config.scope), ascent, config, run, method="imma", **held)
    return changed_weights(loaded, start, trained)
