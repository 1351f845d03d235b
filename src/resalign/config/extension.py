"""Configurations that change another one: what ``extends`` means."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from resalign.config.strict import ConfigError, nearest, read_yaml

# Keys whose entries a person names; in a file that extends another one, null leaves such an entry out.
LABELLED = ("assets", "prepared", "pipelines", "unlearning", "attacks", "sweeps", "prompts", "scorers", "metrics")


def extended(values: dict[str, Any], *, where: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """Plain values over those of the file that their key ``extends`` names, which may extend another one itself.

    Mappings are merged key by key, down to single settings; a list, a number and an asset, which has one origin,
    replace what was there.

    Args:
        values: Content of one file.
        where: What to call it in an error.
        above: The files that led here, each of which extends the next.

    Raises:
        ConfigError: If the other file is missing or broken, extends this one, or if ``values`` have no name of their
            own: their page would overwrite the other's.
    """
    other = values.get("extends")
    if other is None:
        return values
    if not isinstance(other, str):
        raise ConfigError(f"{where}: key 'extends': give the path of one configuration file (got {other!r})")
    if "name" not in values:
        raise ConfigError(f"{where}: key 'name' is required beside 'extends': results/NAME would be that of {other}")
    other = os.path.expanduser(other)
    path = str(Path(other).resolve())
    if path in above:
        raise ConfigError(f"{where}: key 'extends': {other} extends itself by way of this file; take one of them out")
    try:
        below = extended(read_yaml(other), where=other, above=(*above, path))
    except ConfigError as error:
        raise ConfigError(f"{where}: key 'extends': {error}") from None
    return merged(below, values, where=where)


def merged(below: dict[str, Any], own: dict[str, Any], *, where: str, parent: str | None = None) -> dict[str, Any]:
    """``own`` over ``below``; ``parent`` is the top key whose values they are, None at the top and '' further down.

    Raises:
        ConfigError: If ``own`` leaves out what is not there.
    """
    result = dict(below)
    for key, value in own.items():
        if value is None and parent in (*LABELLED, "concept"):  # one concept's words give way to those of several
            if key not in below:
                raise ConfigError(f"{where}: key '{parent}.{key}': null leaves out nothing{nearest(key, below)}")
            del result[key]
        elif isinstance(value, dict) and isinstance(below.get(key), dict) and parent != "assets":
            result[key] = merged(below[key], value, where=where, parent="" if parent is not None else str(key))
        else:
            result[key] = value
    return result
