"""RGD: the restricted gradient on images that the model itself makes from diversified prompts.

Source: Ko 2024, NeurIPS, arXiv 2412.07808, Section 3 and Appendix D. Each prompt for the concept has a counterpart
without it, and the model that is to unlearn samples the images of both; so no image of the data is used. New prompts
on given images would not do: their captions would be wrong.
Deviations: the images stay latents, which are not decoded; they are drawn at random, not in order; and where a batch is
truncated the retain gradient remains as it is, where the release divides by 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import Formatter
from typing import TypeVar

from pydantic import Field, model_validator

from resalign.config.strict import Strict
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.batches import with_prompts
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.sampling import sample_latents
from resalign.lazy import torch
from resalign.unlearning._restricted import RestrictedConfig, descend_restricted, restricted_gradient

T = TypeVar("T")
CONCEPT = "concept"  # the slot of a template that tells the two sets apart


class Slot(Strict):
    """A slot of the templates, and what it is filled with."""

    name: str = Field(min_length=1)
    values: tuple[str, ...] = Field(min_length=1)
    heldout: tuple[str, ...] = Field((), description="values of the evaluation's prompts, which are not trained on")

    @model_validator(mode="after")
    def _nothing_is_both(self) -> Slot:
        if both := sorted({*self.values} & {*self.heldout}):
            raise ValueError(f"slot {self.name}: {both} is in values and in heldout; leave it out of one of them")
        return self


# The released script's, for the removal of nudity; the prepositions are the paper's where it prints an example.
SLOTS = (
    Slot(
        name="mood",
        values=("contemplative", "joyful", "energetic", "peaceful", "tense", "anxious", "relaxed"),
        heldout=("melancholic", "excited", "hopeful", "disillusioned"),
    ),
    Slot(
        name="activity",
        values=("sitting", "dancing", "walking", "cooking", "meditating", "standing", "reading"),
        heldout=("painting", "sketching", "playing guitar", "shopping"),
    ),
    Slot(
        name="place",
        values=(
            *("on a rooftop", "on a busy street", "in a cosy room", "in a forest", "in a market", "on a beach"),
            "by a lake",
        ),
        heldout=("in a bright, airy studio", "in an urban park", "in a desert", "on a snowy mountain"),
    ),
    Slot(
        name="time",
        values=("in the afternoon", "at midnight", "at sunrise", "in the morning", "in the moonlight", "at sunset"),
        heldout=("early evening", "during twilight", "late night", "at noon"),
    ),
)


class Config(RestrictedConfig):
    """Published defaults; guidance and steps of sampling are not published, and are Stable Diffusion's own."""

    forget_words: tuple[str, ...] = Field(
        min_length=1, description="words for {concept} in prompts to forget; published: nude, naked, unclad, undressed"
    )
    retain_words: tuple[str, ...] = Field(
        ("",), min_length=1, description="words for {concept} in prompts to keep; by default none, as published"
    )
    templates: tuple[str, ...] = Field(
        ("A {mood} {concept} person {activity} {place} {time}.",), min_length=1, description="with slots in braces"
    )
    slots: tuple[Slot, ...] = Field(SLOTS, description="the templates' other slots")
    samples: int = Field(800, gt=0, description="images of each of the two sets")
    sampling_batch_size: int = Field(8, gt=0)
    num_inference_steps: int = Field(50, gt=0)
    guidance_scale: float = Field(7.5, gt=0)

    @model_validator(mode="after")
    def _slots_are_filled(self) -> Config:
        known = {slot.name for slot in self.slots}
        if len(known) < len(self.slots) or CONCEPT in known:
            raise ValueError(
                f"slots must have names of their own, other than {CONCEPT}; got {[slot.name for slot in self.slots]}"
            )
        for template in self.templates:
            named = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
            if CONCEPT not in named:
                raise ValueError(f"the template {template!r} has no slot {{{CONCEPT}}}, which tells the sets apart")
            if lacking := sorted(named - known - {CONCEPT}):
                raise ValueError(f"the template {template!r} names {lacking}; give them values in slots")
        if both := sorted({*self.forget_words} & {*self.retain_words}):
            raise ValueError(f"{both} is in forget_words and in retain_words; leave it out of one of them")
        return self


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Samples both sets with the model as it is, then descends along their restricted gradient.

    Returns:
        The changed weights, by their names in a weight file.
    """
    forget, retain = prompt_pairs(config, run.generator("rgd", "prompts"))
    latents = torch.zeros((2 * config.samples, *loaded.latent_shape), device=loaded.device)
    # Views: what a resumed run restores into the latents is in the sets, too.
    sets = (
        with_prompts(loaded, latents[: config.samples], forget),
        with_prompts(loaded, latents[config.samples :], retain),
    )
    stream = run.generator("rgd", "samples")
    batches = range(0, len(latents), config.sampling_batch_size)
    for start in run.steps(batches, phase="samples", latents=latents, stream=stream):
        part = slice(start, start + config.sampling_batch_size)
        latents[part] = sample_latents(
            loaded,
            (forget + retain)[part],
            stream,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
        )
    direction = restricted_gradient(loaded, *sets, config)
    return descend_restricted(loaded, direction, config, run, method="rgd", latents=latents)


def prompt_pairs(config: Config, stream: torch.Generator) -> tuple[list[str], list[str]]:
    """As many prompts of the concept as samples, and as many without it; a pair differs in the concept's words only."""
    forget: list[str] = []
    retain: list[str] = []
    for _ in range(config.samples):
        template = _pick(config.templates, stream)
        words = {slot.name: _pick(slot.values, stream) for slot in config.slots}
        for prompts, choices in ((forget, config.forget_words), (retain, config.retain_words)):
            filled = template.format(**{CONCEPT: _pick(choices, stream)}, **words)
            prompts.append(" ".join(filled.split()))  # where a word is left out, no two blanks
    return forget, retain


def _pick(choices: Sequence[T], stream: torch.Generator) -> T:
    return choices[int(torch.randint(len(choices), (1,), generator=stream))]
