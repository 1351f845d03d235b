"""The harmful losses that a method may descend, each on a batch that stays fixed: the smaller, the safer the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from resalign.config.passes import Passes
from resalign.config.strict import Strict
from resalign.contracts import UnlearningData
from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.diffusion.sampling import partial_sample
from resalign.lazy import torch
from resalign.objectives.denoising import harmful_loss, repeated_loss
from resalign.objectives.erasure import erasure_loss
from resalign.objectives.relabelling import relabelling_loss
from resalign.tensors.params import Params
from resalign.unlearning._concept_prompts import draw_rows
from resalign.unlearning._relabelling import substitutes_of

OfWeights = Callable[[Params], "torch.Tensor"]
# Draws a batch; x_t of a loss that samples it is sampled with the given weights.
Draw = Callable[[Params, "torch.Generator"], OfWeights]


class Denoising(Strict):
    """The negative denoising loss on `forget`; unbounded below without `truncation`."""

    quantity: ClassVar[str] = "neg_harmful_denoising_loss"
    name: Literal["denoising"] = "denoising"


class Erasure(Strict):
    """ESD's loss on the prompts of one concept a step; x_t is sampled, so that no image is used."""

    quantity: ClassVar[str] = "erasure_loss"
    name: Literal["erasure"] = "erasure"
    negative_guidance: float = Field(1.0, ge=0, description="η")
    start_guidance: float = Field(3.0, gt=0, description="guidance of the partial sampling that gives x_t")
    num_inference_steps: int = Field(50, gt=1, description="DDIM steps of a whole sampling")


class Relabelling(Strict):
    """SalUn's loss on `forget`: the original model's prediction for the substitute is the target."""

    quantity: ClassVar[str] = "relabelling_loss"
    name: Literal["relabelling"] = "relabelling"


def _named(value: Any) -> Any:
    """``erasure`` for ``{name: erasure}``."""
    return {"name": value} if isinstance(value, str) else value


_Losses = Denoising | Erasure | Relabelling
_read = BeforeValidator(_named, json_schema_input_type=_Losses | Literal["denoising", "erasure", "relabelling"])
HarmfulLoss = Annotated[_Losses, Field(discriminator="name"), _read]


class HarmfulConfig(Strict):
    """Which harmful loss."""

    harmful: HarmfulLoss = Field(
        default_factory=Denoising, description="denoising, erasure or relabelling; its name, or name and settings"
    )
    truncation: float | None = Field(
        None, gt=0, description="cap of the denoising error; null for none, as published; the other losses need none"
    )

    @model_validator(mode="after")
    def _only_the_unbounded_loss_is_truncated(self) -> HarmfulConfig:
        if self.truncation is not None and self.harmful.name != "denoising":
            raise ValueError(f"truncation caps the denoising error, and harmful is {self.harmful.name}; leave it out")
        return self

    @property
    def target_passes(self) -> Passes:
        """Of an example's loss, besides the prediction itself: the original model's for the target."""
        kind = self.harmful
        if isinstance(kind, Erasure):
            return Passes(forward=1 + bool(kind.negative_guidance))
        return Passes(forward=1 if isinstance(kind, Relabelling) else 0)

    @property
    def drawing_passes(self) -> Passes:
        """Of an example's drawing, in the mean: 0 to N − 1 steps of a sampling, each with the prompt and without."""
        return Passes(forward=self.harmful.num_inference_steps - 1 if isinstance(self.harmful, Erasure) else 0)

    def needs(self) -> tuple[str, ...]:
        """Relabelling needs a prompt for what is shown in the concept's place."""
        return ("substitute",) if self.harmful.name == "relabelling" else ()


def harmful_draws(loaded: LoadedPipeline, data: UnlearningData, config: HarmfulConfig, batch_size: int) -> Draw:
    """How a harmful loss is drawn; every target is the original model's, so that it depends on the weights once.

    Deviation: SalUn's released target is the present model's prediction, on which the loss would depend as well.
    """
    denoiser, original, kind = loaded.denoiser, named_weights(loaded.denoiser), config.harmful
    if isinstance(kind, Denoising):

        def denoising(_: Params, stream: torch.Generator) -> OfWeights:
            batch = data.forget.draw(batch_size, stream)
            return repeated_loss(harmful_loss, loaded, [batch], config.truncation)

        return denoising
    if isinstance(kind, Erasure):
        return _erasure_draws(loaded, data, kind, batch_size)
    substitutes = substitutes_of(loaded, data)

    def relabelling(_: Params, stream: torch.Generator) -> OfWeights:
        batch = data.forget.draw(batch_size, stream)
        substitute = substitutes(batch.prompts)
        return lambda weights: relabelling_loss(denoiser, weights, original, batch, substitute)

    return relabelling


def denoising_pairs(
    loaded: LoadedPipeline, data: UnlearningData, config: HarmfulConfig, batch_size: int
) -> Callable[[torch.Generator], tuple[OfWeights, OfWeights]]:
    """How the denoising loss is drawn twice: on the same images and timesteps, at two independent noises."""

    def pair(stream: torch.Generator) -> tuple[OfWeights, OfWeights]:
        batches = data.forget.draw_pair(batch_size, stream)
        one, other = (repeated_loss(harmful_loss, loaded, [batch], config.truncation) for batch in batches)
        return one, other

    return pair


def _erasure_draws(loaded: LoadedPipeline, data: UnlearningData, kind: Erasure, batch_size: int) -> Draw:
    """ESD's loss at an x_t that is sampled once with the weights of the draw."""
    original = named_weights(loaded.denoiser)
    concept, empty = loaded.encode_prompts(data.prompts), loaded.unconditional(batch_size)

    def erasure(weights: Params, stream: torch.Generator) -> OfWeights:
        prompts = concept[draw_rows(data.concepts, batch_size, stream)]
        latents, timesteps = partial_sample(
            loaded,
            weights,
            prompts,
            empty,
            guidance_scale=kind.start_guidance,
            num_inference_steps=kind.num_inference_steps,
            generator=stream,
        )
        batch = NoisyBatch(latents, timesteps, prompts, torch.empty_like(latents))
        return lambda weights: erasure_loss(loaded.denoiser, weights, original, batch, empty, kind.negative_guidance)

    return erasure
