"""The jobs that make prepared image sets, from assets or by a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from resalign.config import registry
from resalign.jobs import inputs
from resalign.jobs.inputs import Input
from resalign.jobs.job import Job

if TYPE_CHECKING:
    from resalign.config.plan import Plan

SETS = "data.sets"  # the family of prepared image sets


class PrepareJob(Job):
    """A job of scripts/prepare.py, or of scripts/generate.py."""

    name: str  # the set's label
    set: dict[str, Any]  # name and settings of the member that makes it; sources are paths
    device: str | None = None  # of a model that generates it

    @classmethod
    def of(cls, plan: Plan, name: str) -> PrepareJob:
        """The job of a set by its label."""
        member = plan.experiment.prepared[name]
        sources = {key: Input.asset(plan, reference) for key, reference in plan.experiment.sources(name).items()}
        device = {"device": plan.experiment.resources("sample").device} if _generates(member.name) else {}
        return cls(name=name, set={**member.resolved(), **sources}, **device)

    @property
    def module(self) -> str:
        """The member's module."""
        return f"resalign.{SETS}.{self.set['name']}"

    def code(self) -> str:
        """The code that makes the set: its own member's closure."""
        return inputs.code("generate" if _generates(self.set["name"]) else "prepare", self.module)


def patterns(members: Mapping[str, str]) -> tuple[str, str]:
    """Regular expressions of the folders' names: of sets that are prepared, and of those that a model generates.

    Args:
        members: The member that makes each set, by the set's label.
    """
    by_kind: dict[bool, list[str]] = {False: [], True: []}
    for label, member in members.items():
        by_kind[_generates(member)].append(f"{re.escape(label)}-[0-9a-f]{{10}}")
    return "|".join(by_kind[False]) or "(?!)", "|".join(by_kind[True]) or "(?!)"


def _generates(member: str) -> bool:
    return hasattr(registry.member(SETS, member), "generate")
