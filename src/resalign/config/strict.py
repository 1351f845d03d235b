"""The base class of every configuration, whose errors name the key, the nearest known key and what is allowed."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import pydantic

from resalign.disclosure import secrets

PROSE = ("title", "subtitle", "concept.prompts")  # keys of sentences, which may speak of a password


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names file, key and remedy."""


class Strict(pydantic.BaseModel):
    """A frozen configuration: unknown keys and values of another type are errors, never ignored or converted."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, values: Any, *, where: str) -> Self:
        """Validates plain values (as YAML gives them).

        Args:
            values: A mapping of keys to values.
            where: What to call the source in an error: a file, with the key that holds ``values``.

        Raises:
            ConfigError: Naming ``where``, every faulty key and what it may be.
        """
        try:
            # JSON mode accepts lists for tuples and strings for paths, as YAML writes them, and stays strict otherwise.
            return cls.model_validate(_tuples(values), strict=None)
        except pydantic.ValidationError as error:
            lines = [_explain(cls, values, detail) for detail in error.errors(include_url=False)]
            raise ConfigError(f"{where}: " + "\n".join(lines)) from None


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'? allowed: […]`` with the nearest known name; ``; allowed: […]`` where none is near."""
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"; did you mean '{close[0]}'?" if close else ";"
    return f"{hint} allowed: {known}"


def _tuples(values: Any) -> Any:
    """Lists as tuples, all the way down: configurations are hashable."""
    if isinstance(values, list | tuple):
        return tuple(_tuples(value) for value in values)
    if isinstance(values, dict):
        return {key: _tuples(value) for key, value in values.items()}
    return values


def _explain(model: type[pydantic.BaseModel], values: Any, detail: Any) -> str:
    """One validation error as a sentence."""
    location = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        owner = _model_at(model, detail["loc"][:-1])
        known = owner.model_fields if owner else ()
        return f"unknown key '{location}'{nearest(str(detail['loc'][-1]), known)}"
    if detail["type"] == "union_tag_invalid":
        tag, tags = detail["ctx"]["tag"], [t.strip(" '") for t in detail["ctx"]["expected_tags"].split(",")]
        return f"key '{location}': no {detail['loc'][-1]} named '{tag}'{nearest(tag, tags)}"
    if detail["type"] == "missing":
        return f"key '{location}' is required"
    got = "" if detail["type"] == "value_error" else f" (got {detail['input']!r})"
    message = detail["msg"].removeprefix("Value error, ")
    return f"key '{location}': {message}{got}" if location else f"{message}{got}"


def _model_at(model: type[pydantic.BaseModel], location: tuple[Any, ...]) -> type[pydantic.BaseModel] | None:
    """The model class that holds a nested location, where the annotations tell."""
    candidates: list[type[pydantic.BaseModel]] = [model]
    for part in location:
        holder = next((c for c in candidates if part in c.model_fields), None)
        if holder:
            candidates = list(_inner_models(holder.model_fields[part].annotation))
        else:  # a key of a dict, or the tag that chose one class of a union
            tagged = [c for c in candidates if "name" in c.model_fields and c.model_fields["name"].default == part]
            candidates = tagged or candidates
    return candidates[0] if candidates else None


def _inner_models(annotation: Any) -> Iterator[type[pydantic.BaseModel]]:
    """The model classes inside an annotation such as ``dict[str, Model]`` or ``Model | Other``."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _inner_models(argument)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML mapping.

    Raises:
        ConfigError: If the file is missing, is not in UTF-8, is not YAML or is not a mapping.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; give the path of a configuration such as config/demo.yaml")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _once_loader())
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not in UTF-8 ({error}); save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, got {type(values).__name__}")
    return values


@functools.cache
def _once_loader() -> Any:
    """The safe loader, for which a key that a mapping repeats is an error: plain YAML would keep the last alone."""
    import yaml

    class OnceLoader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
            node = super().compose_mapping_node(anchor)
            known: set[str] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue  # no mapping's key
                if key.value in known and key.tag != "tag:yaml.org,2002:merge":
                    said = f"the key {key.value!r} is there twice; keep one, or put both under it"
                    raise yaml.composer.ComposerError(None, None, said, key.start_mark)
                known.add(str(key.value))
            return node

    return OnceLoader


def typed(value: Any) -> Any:
    """Text as what a file would have there: Snakemake reads what is nested in a value of ``--config`` as text."""
    import yaml

    if isinstance(value, dict):
        return {key: typed(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [typed(entry) for entry in value]
    if not isinstance(value, str):
        return value
    if re.fullmatch(r"[-+]?\d+e[-+]?\d+", value, flags=re.IGNORECASE):
        return float(value)  # 1e-3 is text to YAML 1.1
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value


def check_publishable(values: Any, *, where: str, key: str = "") -> None:
    """Refuses a secret: records, page, cards and archive of an experiment have all of its configuration.

    Raises:
        ConfigError: Naming the key, and not what it holds.
    """
    if isinstance(values, dict):
        for name, value in values.items():
            check_publishable(value, where=where, key=f"{key}.{name}" if key else str(name))
    elif isinstance(values, list | tuple):
        for value in values:
            check_publishable(value, where=where, key=key)
    elif isinstance(values, str):
        for _, kind in secrets(f"{key}: {values}", is_prose=key in PROSE):
            raise ConfigError(
                f"{where}: key '{key}' holds what looks like {kind}, which every page and record would publish; take "
                "it out: the hub's token is read from the variable HF_TOKEN, and a file behind a password is "
                "downloaded by hand and named by 'path'"
            )
