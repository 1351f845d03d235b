"""The job that checks the user's own folders and files before any long work."""

from __future__ import annotations

from typing import Literal

from resalign.config.prompts import PromptColumns
from resalign.jobs.job import Job


class CheckInputsJob(Job):
    """A job of scripts/check_inputs.py, see :func:`resalign.config.own_inputs.found`; no path is another job's.

    Attributes:
        prompts: (file, number that the largest tier asks for, columns) of prompt lists.
        members: (family, name) of the methods and attacks that must support the pipelines' architecture.
        checkpoints: (checkpoint, pipeline folder, what the checkpoint must cover).
    """

    pixels: int
    images: tuple[str, ...]
    prompts: tuple[tuple[str, int | None, PromptColumns], ...]
    pipelines: tuple[str, ...]
    members: tuple[tuple[str, str], ...]
    checkpoints: tuple[tuple[str, str, Literal["all", "some"]], ...]
