"""The concept to unlearn: its images, its prompts, and what stands for what is to be kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field, model_validator

from resalign.config.strict import ConfigError, Strict

IMAGE_SETS = ("forget", "retain", "pool")  # image sets of every method
# Further data of the concept, which a method names in `needs()` of its Config.
OPTIONAL = ("substitute", "retain_prompts", "mosaic", "masks")


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
    several: dict[str, ConceptPrompts] = Field(
        {}, description="several concepts by name, each with prompts and a substitute, in place of the two keys above"
    )

    @model_validator(mode="after")
    def _one_or_several(self) -> ConceptConfig:
        if self.several and (self.prompts or self.substitute):
            raise ValueError("several concepts have prompts and a substitute each; leave out prompts and substitute")
        return self

    @property
    def concepts(self) -> tuple[ConceptPrompts, ...]:
        """The concepts in words; of one, those without a prompt leave methods the captions of ``forget``."""
        one = ConceptPrompts(prompts=self.prompts, substitute=self.substitute)
        return tuple(self.several.values()) or (one,)

    def lacking(self, needs: Sequence[str]) -> list[str]:
        """Those of :data:`OPTIONAL` that a method needs and that are not given; a mosaic is made from ``forget``."""
        there = {
            "substitute": all(concept.substitute for concept in self.concepts),
            "retain_prompts": bool(self.retain_prompts),
            "mosaic": True,
            "masks": self.masks is not None,
        }
        return [need for need in needs if not there[need]]


def needs_of(config: Strict) -> tuple[str, ...]:
    """Those of :data:`OPTIONAL` that a method needs, by its settings."""
    return tuple(config.needs()) if hasattr(config, "needs") else ()


def check_methods(concept: ConceptConfig, methods: Mapping[str, Strict], *, where: str) -> None:
    """Raises ConfigError if a concept lacks what a method needs; ``methods`` has their settings by label."""
    for label, config in methods.items():
        if lacking := concept.lacking(needs_of(config)):
            keys = ", ".join(f"concept.{name}" for name in lacking)
            raise ConfigError(f"{where}: unlearning.{label} needs the key {keys}")
