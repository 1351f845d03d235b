"""Generates image sets that were published only as prompts.

This applies to Harmful-Imgs [Pan 2024; of its metadata.jsonl, 1,000 rows of class 1 and 452 of class 2],
HRM-m, HRM-s and the clean set of Meta-Unlearning [Gao 2024, arXiv 2410.12777, E.1; config/prompts], all by the model
before unlearning.

Deviation: sampler, guidance and seeds of the published sets are not known; a set made here is another draw of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from pydantic import Field

from resalign.config.prompts import PromptColumns
from resalign.config.strict import Strict
from resalign.data.image_sets import Picture, Splits, write_splits
from resalign.data.members import log_left_out
from resalign.data.prompts import Prompt, read_prompts

INPUTS = ("model", "prompts")
# Makes the files of images, each of a prompt and its index, in that order.
Draw = Callable[[Sequence[tuple[Prompt, int]]], Iterator[bytes]]


class Config(Strict):
    """Which prompts, how many images of each, and how they are made and split.

    Attributes:
        model: The pipeline that draws, as ``asset``.
        prompts: The list, as ``asset/file``.
        columns: How the list is read.
        first: So many prompts of it, after those that ``columns`` skips; None for all.
        images: Of each prompt.
        num_inference_steps, guidance_scale, batch_size: Of the sampling.
        splits: Images of each folder to make; null for the rest.
        seed: Keys the initial noise, and decides which image is in which split.
    """

    model: str
    prompts: str
    columns: PromptColumns = PromptColumns()
    first: int | None = Field(None, gt=0)
    images: int = Field(1, gt=0)
    num_inference_steps: int = Field(30, gt=0)
    guidance_scale: float = Field(7.5, ge=1)
    batch_size: int = Field(8, gt=0)
    splits: Splits = {"train": None}
    seed: int = Field(0, ge=0)


def generate(config: Config, output: Path, draw: Draw) -> None:
    """Writes the splits.

    Args:
        config: The settings; ``model`` and ``prompts`` are paths.
        output: Folder of the set.
        draw: The model at work, which this layer knows nothing of.

    Raises:
        DataError: If the list cannot be read, or the splits ask for more images than are made.
    """
    prompts = read_prompts(Path(config.prompts), config.first, config.columns)
    # An empty prompt has an image and no caption: nobody can be trained on that.
    log_left_out(config.prompts, "empty prompts", [prompt.id for prompt in prompts if not prompt.text.strip()])
    draws = [(prompt, index) for prompt in prompts if prompt.text.strip() for index in range(config.images)]
    pictures = [
        Picture(f"{prompt.id}#{index}", prompt.text, partial(bytes, content))
        for (prompt, index), content in zip(draws, draw(draws), strict=True)
    ]
    write_splits(pictures, config.splits, config.seed, output, label=config.prompts)
