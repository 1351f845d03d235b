"""STEREO: searches for embeddings that bring an erased concept back, then erases all of them at once.

Stage 1 alternates: the concept is erased, then an embedding of the concept is learned on the erased model by textual
inversion, which the next round erases. Stage 2 starts from the original weights and moves away from the concept and all
embeddings found, towards anchors, which are the retain prompts.

Source: Srivatsan 2025, CVPR, arXiv 2408.16807; the released script (robust-concept-erasing, commit 86f124f).
Deviation: the learned embedding takes the place of a rare token's while it is trained and erased; the release adds one
to the vocabulary. It is no part of the result.
Deviation: one template of captions for the inversion; the release draws from a list.
Deviation: in stage 2 the embedding of a step is drawn, and so is the anchor; the release takes each equally often.
Deviation: the release's one guidance g of stage 2 weighs anchors by g − 1 and the concept by −g − 1, of which its help
says that both are g − 1: the default here. ``negative_guidance: 3`` is what it computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, field_validator

from resalign.contracts import Run, UnlearningData
from resalign.diffusion.conditioning import Conditioning, concatenate
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import Scope, named_weights, select
from resalign.diffusion.token_embedding import TokenEmbedding, token_embedding
from resalign.lazy import torch
from resalign.objectives.denoising import denoising_loss
from resalign.objectives.erasure import erasure_loss, steered_loss
from resalign.tensors.params import Params, detached
from resalign.unlearning._concept_prompts import draw_rows
from resalign.unlearning._descent import DescentConfig, Gradient, Logged, descend, of_loss
from resalign.unlearning._partial_sampling import SampledConfig, sampled

ARCHITECTURES = ("stable_diffusion", "stable_diffusion_xl")  # cross-attention, and x_t sampled by DDIM


class Inversion(DescentConfig):
    """Textual inversion on an erased model; Gal 2022, arXiv 2208.01618."""

    steps: int = Field(3000, ge=0)
    lr: float = Field(5e-3, gt=0)
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    weight_decay: float = Field(1e-2, ge=0)
    batch_size: int = Field(1, gt=0)
    template: str = Field("a photo of a {}", description="the caption of the forget images; {} stands for the token")

    @field_validator("template")
    @classmethod
    def _has_the_token(cls, template: str) -> str:
        if template.count("{}") != 1:
            raise ValueError(f"template must have {{}} once, in the place of the token, got {template!r}")
        return template


class Config(SampledConfig):
    """Published defaults; steps and optimizer are those of an erasure of either stage."""

    scope: Scope = "noxattn"
    steps: int = Field(200, ge=0)
    lr: float = Field(2e-5, gt=0, description="of stage 2")
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    weight_decay: float = Field(1e-2, ge=0)
    rounds: int = Field(4, ge=0, description="of stage 1; 0 leaves stage 2 with the concept's own prompt alone")
    search_lr: float = Field(5e-6, gt=0, description="of erasures in stage 1")
    search_guidance: float = Field(
        0.0, ge=0, description="η of ESD's loss in stage 1; the release's 2 counts two more, and its target is ε₀(∅)"
    )
    inversion: Inversion = Inversion()
    token: str = Field(
        "sks", min_length=1, description="a rare word, one entry of the vocabulary, that is lent its place"
    )
    initializer_token: str = Field("person", min_length=1, description="whose embedding each inversion starts from")
    anchor_guidance: float = Field(1.0, ge=0, description="weight of ε₀(anchor) − ε₀(∅) in stage 2's target")
    negative_guidance: float = Field(
        1.0, ge=0, description="weight of the mean of ε₀(c) − ε₀(∅) over concept and embeddings, which is subtracted"
    )

    def needs(self) -> tuple[str, ...]:
        """Retain prompts are the anchors."""
        return ("retain_prompts",) if self.anchor_guidance else ()


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Runs both stages.

    Returns:
        The changed weights, by their names in a weight file.

    Raises:
        ConfigError: If a token is not one entry of the vocabulary.
    """
    original = named_weights(loaded.denoiser)
    names = select(original, config.scope)
    token = token_embedding(loaded, config.token)
    initial = detached(token_embedding(loaded, config.initializer_token).row)
    search = config.model_copy(update={"lr": config.search_lr})
    # Filled in place, so that every loop that goes on after a stop restores the outcome of those before it.
    student = detached({name: original[name] for name in names})
    found = [detached(initial) for _ in range(config.rounds)]
    held: dict[str, Any] = {"student": student, "found": found}
    for number in range(config.rounds):
        weights = {**original, **student}  # of this round's start: its reference, too [release, train_erasing]
        erasure = _search_gradient(loaded, data, config, weights, found[:number][-1:])
        name = f"erasure {number}"
        erased = descend(weights, names, erasure, search, run, method=f"stereo {name}", phase=name, **held)
        _fill(student, erased)
        inversion = _inversion_gradient(loaded, data, config, {**original, **student}, token)
        name = f"inversion {number}"
        row = descend(initial, initial, inversion, config.inversion, run, method=f"stereo {name}", phase=name, **held)
        _fill(found[number], row)
    direction = final_gradient(loaded, data, config, found)
    return loaded.named(descend(original, names, direction, config, run, method="stereo", **held))


def final_gradient(
    loaded: LoadedPipeline,
    data: UnlearningData,
    config: Config,
    found: Sequence[Params] = (),
) -> Gradient:
    """The gradient of stage 2's loss at the concept's prompt or one of the embeddings found.

    Args:
        loaded: Supplies network, prompts' embeddings and noise schedule.
        data: The concepts in words, and the anchors.
        config: The target's weights, batch size, and the sampling of x_t.
        found: Embeddings of stage 1, of the token in each text encoder's table; read at every step.
    """
    original = named_weights(loaded.denoiser)
    empty = loaded.unconditional(config.batch_size)

    def loss(weights: Params, stream: torch.Generator) -> tuple[torch.Tensor, Logged]:
        negatives = _negatives(loaded, data, config, found, stream)
        chosen = int(torch.randint(len(negatives), (1,), generator=stream)) if len(negatives) > 1 else 0
        concept = negatives[[chosen] * config.batch_size]
        terms = [(-config.negative_guidance / len(negatives), each) for each in _each(negatives, config.batch_size)]
        if config.anchor_guidance:
            rows = torch.randint(len(data.retain_prompts), (config.batch_size,), generator=stream)
            anchors = loaded.encode_prompts([data.retain_prompts[row] for row in rows.tolist()])
            terms.append((config.anchor_guidance, anchors))
        batch = sampled(loaded, config, weights, concept, empty, stream)
        value = steered_loss(loaded.denoiser, weights, original, batch, empty, terms)
        return value, {"erasure_loss": value.item()}

    return of_loss(loss)


def _search_gradient(
    loaded: LoadedPipeline,
    data: UnlearningData,
    config: Config,
    reference: Params,
    latest: Sequence[Params],
) -> Gradient:
    """The gradient of ESD's loss at the latest embedding found, or else the concept's prompt."""
    empty = loaded.unconditional(config.batch_size)

    def loss(weights: Params, stream: torch.Generator) -> tuple[torch.Tensor, Logged]:
        concept = _negatives(loaded, data, config, latest, stream)[[-1] * config.batch_size]
        batch = sampled(loaded, config, weights, concept, empty, stream)
        value = erasure_loss(loaded.denoiser, weights, reference, batch, empty, config.search_guidance)
        return value, {"search_loss": value.item()}

    return of_loss(loss)


def _inversion_gradient(
    loaded: LoadedPipeline, data: UnlearningData, config: Config, weights: Params, token: TokenEmbedding
) -> Gradient:
    """The gradient, in the token's embedding, of the denoising loss on the concept's images."""
    settings, caption = config.inversion, config.inversion.template.format(config.token)

    def loss(row: Params, stream: torch.Generator) -> tuple[torch.Tensor, Logged]:
        batch = data.forget.draw(settings.batch_size, stream)
        conditioning = loaded.encode_prompts([caption], token.weights(row)).expand(settings.batch_size)
        value = denoising_loss(loaded.denoiser, weights, replace(batch, conditioning=conditioning))
        return value, {"inversion_loss": value.item()}

    return of_loss(loss)


def _negatives(
    loaded: LoadedPipeline,
    data: UnlearningData,
    config: Config,
    found: Sequence[Params],
    stream: torch.Generator,
) -> Conditioning:
    """One of the concept's prompts, drawn, then the embeddings found, each as a prompt of the token alone."""
    row = int(draw_rows(data.concepts, 1, stream))
    parts = [loaded.encode_prompts([data.prompts[row]])]
    token = token_embedding(loaded, config.token)
    with torch.no_grad():
        parts += [loaded.encode_prompts([config.token], token.weights(embedding)) for embedding in found]
    return concatenate(parts)


def _each(conditioning: Conditioning, batch_size: int) -> list[Conditioning]:
    """Every example of a batch, repeated ``batch_size`` times."""
    return [conditioning[[row] * batch_size] for row in range(len(conditioning))]


def _fill(place: Params, values: Params) -> None:
    """Copies tensors into others of the same names."""
    for name, tensor in place.items():
        tensor.copy_(values[name])
