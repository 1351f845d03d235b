"""What the workflow hands to a method or an attack, and what it expects back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from resalign.config.strict import ConfigError
from resalign.data.prompts import Prompt
from resalign.diffusion.architectures import NAMES
from resalign.diffusion.batches import EncodedImages
from resalign.diffusion.lora_files import Lora
from resalign.lazy import torch
from resalign.running.attempt import Attempt
from resalign.tensors.named import Named
from resalign.tensors.seeds import generator
from resalign.tracking import History


def check_architecture(member: ModuleType, architecture: str) -> None:
    """Fails unless a method or an attack supports a kind of pipeline; one that does not say supports all.

    Raises:
        ConfigError: Naming both, and what is supported.
    """
    supported = getattr(member, "ARCHITECTURES", NAMES)
    if architecture not in supported:
        _, family, name = member.__name__.split(".")
        raise ConfigError(
            f"{family} '{name}' supports {list(supported)}, and the model is {architecture}; take another of either"
        )


@dataclass(frozen=True)
class UnlearningData:
    """What an unlearning method may use; none of it is seen by an attack or a metric.

    Attributes:
        forget: Images of the unsafe concept with their prompts.
        retain: Images whose prompts the model should keep serving, for preservation and as DreamBooth's prior.
        pool: Benign images that simulated users fine-tune on.
        prompts: Prompts that name the concept, for methods that need no images.
        checkpoint: A released weight file or folder, for the method ``imported``.
    """

    forget: EncodedImages
    retain: EncodedImages
    pool: EncodedImages
    prompts: tuple[str, ...]
    checkpoint: Path | None = None


@dataclass(frozen=True)
class AttackData:
    """What an attack fine-tunes on, and what it measures its own success on.

    Attributes:
        train: The user's images.
        heldout: Images like them, of which it sees none.
        prior: Images of the class at large, for attacks with prior preservation.
        harmful: Images of the unsafe concept, for attacks by who has some.
        prompts: What an attack on prompts changes, in the order of their list.
    """

    train: EncodedImages
    heldout: EncodedImages
    prior: EncodedImages | None = None
    harmful: EncodedImages | None = None
    prompts: tuple[Prompt, ...] = ()


class Save(Protocol):
    """What an attack calls to keep a step's weights, or its prompts."""

    def __call__(self, step: int, weights: Named, lora: Lora | None = None, prompts: Sequence[Prompt] = (), /) -> None:
        """Keeps changed weights, by their names in a weight file, and the LoRA whose merged form they are, if any.

        An attack on prompts changes no weights, and gives the prompts that take the place of those of the same ids.
        """


@dataclass(frozen=True)
class Run:
    """One run of a stage: its seed, its records, its progress.

    Attributes:
        seed: Training seed.
        history: Quantities by step.
        progress: Wraps a range of steps in a progress bar.
        attempt: Saves the state of step loops and takes them up again; as it stands by default, does neither.
        kept: What the stage itself keeps between steps, plain values by name, such as the files written so far.
    """

    seed: int
    history: History = field(default_factory=History)
    progress: Callable[[range], Iterable[int]] = lambda steps: steps
    attempt: Attempt = field(default_factory=Attempt)
    kept: dict[str, Any] = field(default_factory=dict)

    def steps(self, steps: range, *, phase: str = "steps", **held: Any) -> Iterator[int]:
        """The steps that are left of a training loop, with progress; every long loop of a member is one of these.

        Args:
            steps: All steps.
            phase: Name of the loop; a method with several loops names each.
            held: Everything that a step changes and a later step or the result depends on (variables, optimizer, random
                streams); saved between steps, as the history is; see :meth:`resalign.running.attempt.Attempt.steps`.
        """
        return self.attempt.steps(
            steps, phase=phase, progress=self.progress, history=self.history, kept=self.kept, **held
        )

    def generator(self, *purpose: str | int) -> torch.Generator:
        """A random stream of this run, named by its purpose."""
        return generator(*purpose, self.seed)
