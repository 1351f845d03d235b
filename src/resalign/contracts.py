"""The interface between the workflow and a method or an attack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

from resalign.config.concept import ConceptPrompts
from resalign.config.strict import ConfigError
from resalign.data.prompts import Prompt
from resalign.diffusion.architectures import NAMES
from resalign.diffusion.batches import EncodedImages
from resalign.diffusion.lora_files import Lora
from resalign.lazy import torch
from resalign.running.attempt import Attempt
from resalign.tensors.params import Params
from resalign.tensors.seeds import generator
from resalign.tracking import History


def check_architecture(member: ModuleType, architecture: str) -> None:
    """Raises unless a method or an attack supports a kind of pipeline; without ``ARCHITECTURES`` it supports all.

    Raises:
        ConfigError: If it does not, naming the supported kinds.
    """
    supported = getattr(member, "ARCHITECTURES", NAMES)
    if architecture not in supported:
        _, family, name = member.__name__.split(".")
        raise ConfigError(
            f"{family} '{name}' supports {list(supported)}, and the model is {architecture}; take another of either"
        )


# Of a term that preserves: what is retained, or also what simulated users fine-tune on.
RetainImages = Literal["retain", "retain_and_pool"]


@dataclass(frozen=True)
class UnlearningData:
    """The data of an unlearning method; attacks and metrics use none of it.

    The optional parts are there for a method whose ``Config`` names them in ``needs()``; see
    :data:`resalign.config.concept.OPTIONAL`.

    Attributes:
        forget: Images of the unsafe concept with their prompts; see :meth:`EncodedImages.halves` for a part that an
            adversary trains on and another that the outer loss is taken on.
        retain: Images of prompts that the model should keep, for preservation.
        pool: Benign images that simulated users fine-tune on.
        concepts: The concepts to unlearn, in words, for methods that need no images; one or several.
        retain_prompts: Prompts that the model should keep, for methods that preserve without images.
        mosaic: The images of ``forget`` in the same order, each coarsened to a mosaic.
        prior: Images of what users personalise, at large, for DreamBooth's prior; ``retain`` stands for them elsewhere.
        masks: Where each image of ``forget`` shows the concept, (N, h, w) in [0, 1], at the latents' resolution.
        checkpoint: A released weight file or folder, for the method ``imported``.
    """

    forget: EncodedImages
    retain: EncodedImages
    pool: EncodedImages
    concepts: tuple[ConceptPrompts, ...]
    retain_prompts: tuple[str, ...] = ()
    mosaic: EncodedImages | None = None
    masks: torch.Tensor | None = None
    checkpoint: Path | None = None
    prior: EncodedImages | None = None

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts of every concept."""
        return tuple(prompt for concept in self.concepts for prompt in concept.prompts)

    def retained(self, images: RetainImages) -> EncodedImages:
        """``retain``, or ``retain`` and ``pool`` together."""
        return self.retain if images == "retain" else self.retain.joined(self.pool)


@dataclass(frozen=True)
class AttackData:
    """The data of an attack: images to fine-tune on, and held-out images to measure learning.

    Attributes:
        train: The user's images.
        heldout: Images like them, which the attack does not train on.
        prior: Images of the class at large, for attacks with prior preservation.
        harmful: Images of the unsafe concept, for attackers who have some.
        prompts: The prompts that an attack on prompts changes, in the order of their list.
        unlearned: What unlearning has made of the model's weights, by their names in a weight file, of a user who
            fine-tunes the model without it; see :func:`resalign.attacks._deployed.deployed`.
    """

    train: EncodedImages
    heldout: EncodedImages
    prior: EncodedImages | None = None
    harmful: EncodedImages | None = None
    prompts: tuple[Prompt, ...] = ()
    unlearned: Params = field(default_factory=dict)


class Save(Protocol):
    """The callback by which an attack saves a step's weights or prompts."""

    def __call__(self, step: int, weights: Params, lora: Lora | None = None, prompts: Sequence[Prompt] = (), /) -> None:
        """Saves changed weights, by their names in a weight file, with the LoRA that was merged into them, if any.

        An attack on prompts changes no weights and gives the prompts that replace those of the same ids.
        """


@dataclass(frozen=True)
class Run:
    """One run of a stage: its seed, its records, its progress.

    Attributes:
        seed: Training seed.
        history: Quantities by step.
        progress: Wraps a range of steps in a progress bar.
        attempt: Saves the state of step loops and resumes them; the default does neither.
        kept: The stage's own state between steps, plain values by name, such as the files written so far.
        prefix: Begins the names of its loops, where one method runs within another.
    """

    seed: int
    history: History = field(default_factory=History)
    progress: Callable[[range], Iterable[int]] = lambda steps: steps
    attempt: Attempt = field(default_factory=Attempt)
    kept: dict[str, Any] = field(default_factory=dict)
    prefix: str = ""

    def steps(self, steps: range, *, phase: str = "steps", **held: Any) -> Iterator[int]:
        """The remaining steps of a training loop, with progress; every long loop of a method or an attack uses it.

        Args:
            steps: All steps.
            phase: Name of the loop; a method with several loops names each.
            held: Everything that a step changes and a later step or the result depends on (variables, optimizer, random
                streams); saved between steps, as the history is; see :meth:`resalign.running.attempt.Attempt.steps`.
        """
        return self.attempt.steps(
            steps, phase=self.prefix + phase, progress=self.progress, history=self.history, kept=self.kept, **held
        )

    def generator(self, *purpose: str | int) -> torch.Generator:
        """A random stream of this run, named by its purpose."""
        return generator(*purpose, self.seed)
