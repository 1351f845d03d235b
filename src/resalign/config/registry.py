"""The file name is the registry: members of a family are the modules of its package."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from types import ModuleType
from typing import Any

from resalign.config.strict import ConfigError, Strict, nearest

FAMILIES = ("unlearning", "attacks", "metrics", "scorers")


def members(family: str) -> list[str]:
    """Names of a family's members, sorted; no member is imported.

    Args:
        family: One of :data:`FAMILIES`.
    """
    spec = importlib.util.find_spec(f"resalign.{family}")
    if spec is None or spec.submodule_search_locations is None:
        raise ConfigError(f"no family named '{family}'{nearest(family, FAMILIES)}")
    return sorted(m.name for m in pkgutil.iter_modules(spec.submodule_search_locations) if not m.name.startswith("_"))


def member(family: str, name: str) -> ModuleType:
    """Imports one member, without torch.

    Raises:
        ConfigError: If there is none of that name; the message has the nearest and all the others.
    """
    known = members(family)
    if name not in known:
        raise ConfigError(f"no {family} named '{name}'{nearest(name, known)}")
    return importlib.import_module(f"resalign.{family}.{name}")


def configured(family: str, values: dict[str, Any], *, where: str) -> tuple[ModuleType, Any]:
    """A member and its settings, from plain values whose ``name`` is the member's.

    Args:
        family: One of :data:`FAMILIES`.
        values: As :meth:`resalign.config.experiment.Member.resolved` gives them.
        where: What an error calls the settings.

    Raises:
        ConfigError: If there is no such member, or it has no such settings.
    """
    module = member(family, values["name"])
    return module, module.Config.parse({key: value for key, value in values.items() if key != "name"}, where=where)


def sentence(family: str, name: str) -> str:
    """The sentence that a member's docstring begins with, which defines the member for a reader."""
    return " ".join((member(family, name).__doc__ or "").split("\n\n")[0].split())


def config_class(family: str, name: str) -> type[Strict]:
    """The ``Config`` of one member."""
    found: type[Strict] = member(family, name).Config
    return found
