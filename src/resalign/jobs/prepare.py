"""What the workflow's rules tell the scripts that make prepared image sets, and the files that these read."""

from __future__ import annotations

import re
from collections.abc import Mapping

from resalign.config import registry
from resalign.config.experiment import SETS
from resalign.config.plan import Plan
from resalign.jobs import inputs
from resalign.jobs.job import as_json


def module(plan: Plan, name: str) -> str:
    """The member that makes a prepared set."""
    return f"resalign.{SETS}.{plan.experiment.prepared[name].name}"


def is_generated(plan: Plan, name: str) -> bool:
    """Whether a model makes a prepared set's images."""
    return _generates(plan.experiment.prepared[name].name)


def _generates(member: str) -> bool:
    return hasattr(registry.member(SETS, member), "generate")


def patterns(members: Mapping[str, str]) -> tuple[str, str]:
    """What the folders' names match of sets that are prepared, and of those that a model generates.

    Args:
        members: Of each set the member that makes it.
    """
    found: dict[bool, list[str]] = {False: [], True: []}
    for label, member in members.items():
        found[_generates(member)].append(f"{re.escape(label)}-[0-9a-f]{{10}}")
    return "|".join(found[False]) or "(?!)", "|".join(found[True]) or "(?!)"


def code(plan: Plan, name: str) -> list[str]:
    """The code that makes a prepared set: its own member's closure."""
    return inputs.code("generate" if is_generated(plan, name) else "prepare", module(plan, name))


def assets(plan: Plan, name: str) -> list[str]:
    """Markers of what a prepared set is made from."""
    return inputs.completion_files(plan, plan.experiment.sources(name).values())


def job(plan: Plan, name: str) -> str:
    """What scripts/prepare.py or scripts/generate.py needs."""
    sources = {key: plan.folder(reference) for key, reference in plan.experiment.sources(name).items()}
    device = {"device": plan.experiment.resources("sample").device} if is_generated(plan, name) else {}
    return as_json({"name": name, "set": {**plan.experiment.prepared[name].resolved(), **sources}, **device})
