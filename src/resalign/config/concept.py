"""The concept to unlearn: its images, its prompts, and what stands for what is to be kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field, model_validator

from resalign.config.strict import ConfigError, Strict

IMAGE_SETS = ("forget", "retain", "pool")  # image sets of every method
# Further data of the concept, which a method names in `needs()` of its Config.
OPTIONAL = ("substitute", "retain_prompts", "mosaic", "masks", "prior")
OPTIONAL_FOLDERS = ("masks", "prior")  # those that are assets


class ConceptPrompts(Strict):
    """One concept in words."""

    prompts: tuple[str, ...] = Field((), description="prompts that name it, for methods that use no images")
    substitute: str = Field("", description="a prompt for what should be shown in its place")


class ConceptConfig(ConceptPrompts):
    """The concept to unlearn, and its data. A path is ``asset`` or ``asset/folder``."""

    name: str = Field(description="for the page's sentences: a model shows … in so many of its images")
    forget: str
    retain: str
    pool: str
    retain_prompts: tuple[str, ...] = Field(
        (), description="prompts that the model should keep, for methods that preserve without images"
    )
    masks: str | None = Field(
        None, description="where each image of `forget` shows the concept: a white and black image of the same name"
    )
    prior: str | None = Field(
        None, description="images of what users personalise, at large, for methods that simulate prior preservation"
    )
    several: dict[str, ConceptPrompts] = Field(
        {}, description="several concepts by name, each with prompts and a substitute, in place of the two keys above"
    )

    note: str = Field("", description="a sentence on its images, which stands under the main table")

    @model_validator(mode="after")
    def _one_or_several(self) -> ConceptConfig:
        if self.several and (self.prompts or self.substitute):
            raise ValueError("several concepts have prompts and a substitute each; leave out prompts and substitute")
        if unnamed := [name for name, concept in self.several.items() if not concept.prompts]:
            raise ValueError(f"several.{unnamed[0]} has no prompts; only of a single concept are captions taken")
        prompts = [prompt for concept in self.several.values() for prompt in concept.prompts]
        if twice := sorted({prompt for prompt in prompts if prompts.count(prompt) > 1}):
            raise ValueError(f"several: the prompt {twice[0]!r} is given twice; it tells which concept an image is of")
        return self

    @property
    def concepts(self) -> tuple[ConceptPrompts, ...]:
        """The concepts in words; of one, those without a prompt leave methods the captions of ``forget``."""
        one = ConceptPrompts(prompts=self.prompts, substitute=self.substitute)
        return tuple(self.several.values()) or (one,)

    def lacking(self, needs: Sequence[str]) -> list[str]:
        """Keys of what a method needs, of :data:`OPTIONAL`, that are not given; a mosaic is made from ``forget``."""
        substitutes = {f"several.{name}.substitute": c.substitute for name, c in self.several.items()}
        given: dict[str, Mapping[str, object]] = {
            "substitute": substitutes or {"substitute": self.substitute},
            "retain_prompts": {"retain_prompts": self.retain_prompts},
            "mosaic": {},
            "masks": {"masks": self.masks},
            "prior": {"prior": self.prior},
        }
        return [key for need in needs for key, value in given[need].items() if not value]


def needs_of(config: Strict) -> tuple[str, ...]:
    """Those of :data:`OPTIONAL` that a method needs, by its settings."""
    return tuple(config.needs()) if hasattr(config, "needs") else ()


def check_methods(concept: ConceptConfig, methods: Mapping[str, Strict], *, where: str) -> None:
    """Raises ConfigError if a concept lacks what a method needs; ``methods`` has their settings by label."""
    for label, config in methods.items():
        if lacking := concept.lacking(needs_of(config)):
            keys = ", ".join(f"concept.{name}" for name in lacking)
            raise ConfigError(f"{where}: unlearning.{label} needs the key {keys}")
