"""A prompt list in a job: where it lies, and which of its prompts are used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from resalign.config.prompts import Choice, PromptColumns
from resalign.jobs.inputs import Input
from resalign.jobs.job import Part

if TYPE_CHECKING:
    from resalign.config.plan import Plan


class PromptChoice(Part):
    """How prompt lists are read.

    Attributes:
        columns: What their columns hold.
        choice: Which prompts are taken where fewer are asked for.
        prompts: How many; None for all.
    """

    columns: PromptColumns
    choice: Choice = "first"
    prompts: int | None

    def arguments(self, path: str) -> tuple[Path, int | None, PromptColumns, Choice]:
        """The arguments of :func:`resalign.data.prompts.read_prompts` for a file."""
        return Path(path), self.prompts, self.columns, self.choice


class PromptList(PromptChoice):
    """One prompt list, with its file ``path``."""

    path: Input

    @classmethod
    def of(cls, plan: Plan, name: str, *, source: str | None = None, **more: Any) -> Self:
        """A list of the experiment's.

        Args:
            plan: The experiment's.
            name: The list's label.
            source: The asset reference of its file; None for a list that is the same for all attacks.
            more: Further fields.
        """
        entry = plan.experiment.config.prompts[name]
        source = source or plan.experiment.prompt_sources(name)[""]
        return cls(path=Input.asset(plan, source), columns=entry.columns, **entry.chosen, **more)
