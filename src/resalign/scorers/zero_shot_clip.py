"""A zero-shot CLIP classifier over classes that a configuration names, with one for images of nothing.

Source: Radford 2021, CLIP, arXiv 2103.00020, section 3.1. The class of nothing is RGD's: a classifier that must choose
among real classes calls noise one of them, and a model that has broken down looks as if it had kept or forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, model_validator

from resalign.config.strict import Strict
from resalign.lazy import torch
from resalign.scorers._clip_model import ClipModel
from resalign.scorers._scorer import Scorer

NOTHING = "nothing"


class ClassPrompts(Strict):
    """A class: the label of its images' prompts, and what CLIP is asked; the template with its name if left out."""

    name: str
    prompts: tuple[str, ...] = ()


class Config(Strict):
    """Network and classes.

    Attributes:
        folder: An open_clip folder.
        classes: All but the one of nothing.
        template: What is asked of a class without prompts; ``{}`` is its name.
        nothing: What is asked of the class of nothing, which is always there.
    """

    folder: str
    classes: tuple[ClassPrompts, ...] = Field(min_length=1)
    template: str = "a photo of a {}"
    nothing: tuple[str, ...] = Field(("random noise", "a blank image", "a blurry image of nothing"), min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> Config:
        names = [entry.name for entry in self.classes]
        if len(set(names)) < len(names) or NOTHING in names:
            raise ValueError(f"class names must differ, and '{NOTHING}' is added to them; got {names}")
        if "{}" not in self.template:
            raise ValueError(f"template must have {{}} for the class's name; got {self.template!r}")
        return self


def quantities(config: Config) -> tuple[str, ...]:
    """The classes, and the one of nothing."""
    return (*(entry.name for entry in config.classes), NOTHING)


def load(config: Config, folder: Path, device: str) -> Scorer:
    """Loads CLIP; quantities are the classes, then ``nothing``, and their probabilities sum to 1.

    A class's embedding is the mean of its prompts' normalised ones, normalised [CLIP, section 3.1.4]; the softmax is
    over cosines times CLIP's own scale.
    """
    clip = ClipModel(folder, device)
    asked = {entry.name: entry.prompts or (config.template.format(entry.name),) for entry in config.classes}
    asked[NOTHING] = config.nothing
    normalize = torch.nn.functional.normalize
    classes = torch.stack([normalize(normalize(clip.texts(texts)).mean(dim=0), dim=0) for texts in asked.values()])

    def score(images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        cosines = normalize(clip.images(images)) @ classes.T
        return (clip.logit_scale * cosines).softmax(dim=1).cpu()

    return Scorer(quantities(config), score)
