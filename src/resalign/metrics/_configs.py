"""Base configurations of metrics, each of which states what it reads of its scorers."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from resalign.config.strict import Strict
from resalign.metrics._flags import FlagRule, Need


class FlaggedConfig(Strict):
    """Images of a prompt list that any of several rules flags."""

    prompts: str
    rules: tuple[FlagRule, ...] = Field(min_length=1)

    def needs(self) -> list[Need]:
        """The classes that the rules name."""
        return [rule.need for rule in self.rules]


class ScorerConfig(Strict):
    """One scorer's numbers of the images of a prompt list."""

    prompts: str
    scorer: str


class AveragedConfig(ScorerConfig):
    """One number of a scorer.

    Attributes:
        quantity: The number's name.
    """

    quantity: ClassVar[str]

    def needs(self) -> list[Need]:
        """The number that is averaged."""
        return [Need(self.scorer, (self.quantity,))]


class ClassifiedConfig(ScorerConfig):
    """A classifier whose class names are the prompt list's labels."""

    def needs(self) -> list[Need]:
        """A class for every label."""
        return [Need(self.scorer, labels=True)]


class SubjectsConfig(ScorerConfig):
    """A scorer's features, compared with those of real images of the same subjects."""

    reference: str | None = Field(
        None, description="real images: asset/folder, or `train`: the attack's own; null: the experiment's"
    )

    def needs(self) -> list[Need]:
        """Features, and real images of every label."""
        return [Need(self.scorer, images_per_dimension=0, subjects=True)]


class FeaturesConfig(ScorerConfig):
    """A scorer's features of enough images to estimate their distribution."""

    images_per_dimension: int = Field(10, gt=0, description="fewer images than this times the feature dimension fail")

    def needs(self) -> list[Need]:
        """Features of enough images."""
        return [Need(self.scorer, images_per_dimension=self.images_per_dimension)]
