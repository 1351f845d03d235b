"""What the relabelling methods share: drawn batches of images with their concept's substitute, and of retained ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import Field

from resalign.contracts import UnlearningData
from resalign.diffusion.conditioning import Conditioning
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import Scope, named_weights
from resalign.errors import DataError
from resalign.lazy import torch
from resalign.objectives.denoising import denoising_loss
from resalign.objectives.relabelling import relabelling_loss
from resalign.tensors.params import Params
from resalign.unlearning._descent import DescentConfig, Gradient, Logged, of_loss

OfWeights = Callable[[Params], "torch.Tensor"]


class RelabellingConfig(DescentConfig):
    """What is trained, on how many images a step."""

    scope: Scope = "full"
    lr: float = Field(1e-5, gt=0)
    batch_size: int = Field(16, gt=0)
    retain_batch_size: int = Field(16, gt=0)
    target: Literal["current", "original"] = Field(
        "current", description="whose prediction for the substitute is the target; current is published"
    )

    def needs(self) -> tuple[str, ...]:
        """A prompt for what is shown in the concept's place."""
        return ("substitute",)


def drawn_losses(
    loaded: LoadedPipeline, data: UnlearningData, config: RelabellingConfig
) -> Callable[[torch.Generator], tuple[OfWeights, OfWeights]]:
    """Draws a forget batch, then a retain batch.

    Returns:
        A function of the stream that gives the relabelling loss and the denoising loss, each of the batch drawn.
    """
    original, substitutes = named_weights(loaded.denoiser), substitutes_of(loaded, data)

    def draw(stream: torch.Generator) -> tuple[OfWeights, OfWeights]:
        forget, retain = (
            images.draw(size, stream)
            for images, size in ((data.forget, config.batch_size), (data.retain, config.retain_batch_size))
        )
        substitute = substitutes(forget.prompts)

        def relabelling(weights: Params) -> torch.Tensor:
            reference = weights if config.target == "current" else original
            return relabelling_loss(loaded.denoiser, weights, reference, forget, substitute)

        return relabelling, lambda weights: denoising_loss(loaded.denoiser, weights, retain)

    return draw


def weighted_sum(
    loaded: LoadedPipeline,
    data: UnlearningData,
    config: RelabellingConfig,
    *,
    forget_weight: float = 1.0,
    retain_weight: float = 1.0,
) -> Gradient:
    """The gradient of forget_weight · relabelling(forget) + retain_weight · denoising(retain)."""
    draw = drawn_losses(loaded, data, config)

    def loss(weights: Params, stream: torch.Generator) -> tuple[torch.Tensor, Logged]:
        forget, retain = (of_weights(weights) for of_weights in draw(stream))
        logged = {"forget_loss": forget.item(), "retain_loss": retain.item()}
        return forget_weight * forget + retain_weight * retain, logged

    return of_loss(loss)


def substitutes_of(loaded: LoadedPipeline, data: UnlearningData) -> Callable[[Sequence[str]], Conditioning]:
    """The embedded substitute of the concept that each caption is of.

    Raises:
        DataError: If there are several concepts and a caption of the forget set is none of their prompts.
    """
    rows = {prompt: row for row, concept in enumerate(data.concepts) for prompt in concept.prompts}
    unknown = sorted(set(data.forget.prompts) - rows.keys())
    if unknown and len(data.concepts) > 1:
        raise DataError(
            f"images of {len(data.concepts)} concepts need captions that say which: {unknown[0]!r} is no concept's "
            "prompt; add it to one of concept.several"
        )
    embedded = loaded.encode_prompts([concept.substitute for concept in data.concepts])
    return lambda prompts: embedded[[rows.get(prompt, 0) for prompt in prompts]]
