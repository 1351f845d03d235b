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

MAX_BYTES = 4 << 20  # of a configuration; the longest here has 40 kB
MAX_NODES = 200_000  # values, keys and lists of a configuration
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


def shortened(value: object, characters: int = 100) -> str:
    """A value for a message, as one line that is not long."""
    text = str(value) if str(value).isprintable() else ascii(value)
    return text if len(text) <= characters else f"{text[:characters]}… ({len(text)} characters)"


def _tuples(values: Any) -> Any:
    """Lists as tuples, all the way down: configurations are hashable."""
    if isinstance(values, list | tuple):
        return tuple(_tuples(value) for value in values)
    if isinstance(values, dict):
        return {key: _tuples(value) for key, value in values.items()}
    return values


def _explain(model: type[pydantic.BaseModel], values: Any, detail: Any) -> str:
    """One validation error as a sentence."""
    location = ".".join(shortened(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        owner = _model_at(model, detail["loc"][:-1])
        known = owner.model_fields if owner else ()
        return f"unknown key '{location}'{nearest(str(detail['loc'][-1]), known)}"
    if detail["type"] == "union_tag_invalid":
        tag, tags = detail["ctx"]["tag"], [t.strip(" '") for t in detail["ctx"]["expected_tags"].split(",")]
        return f"key '{location}': no {detail['loc'][-1]} named '{tag}'{nearest(tag, tags)}"
    if detail["type"] == "missing":
        return f"key '{location}' is required"
    got = "" if detail["type"] == "value_error" else f" (got {shortened(repr(detail['input']))})"
    message = detail["msg"].removeprefix("Value error, ")
    return f"key '{location}': {message}{got}" if location else f"{message}{got}"


def _model_at(model: type[pydantic.BaseModel], location: tuple[Any, ...]) -> type[pydantic.BaseModel] | None:
    """The model class that holds a nested location, as far as the annotations show."""
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
        ConfigError: In one line, if the file is missing, is not in UTF-8, is no YAML of plain values, is no mapping,
            repeats a key, or is larger than any configuration is, as it stands or with its aliases written out.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; give the path of a configuration such as config/demo.yaml")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ConfigError(f"{path}: has {size} bytes, at most {MAX_BYTES} are read; is it a configuration?")
    try:
        values = _plain_values(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not in UTF-8 ({error}); save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = " ".join(str(error.problem or error.context).split())
        raise ConfigError(f"{path}: not valid YAML: {place}{problem}{_remedy(error)}") from None
    # What is no character, a number of thousands of digits, a date that there is not.
    except (yaml.YAMLError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"{path}: not valid YAML: {problem}; write plain text, numbers, lists and mappings") from None
    except RecursionError:
        raise ConfigError(f"{path}: not valid YAML: nested too deeply; no configuration has ten levels") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, got {type(values).__name__}")
    return values


def _remedy(error: Any) -> str:
    """The remedy for an error of PyYAML; errors of this module include it."""
    import yaml

    if isinstance(error, yaml.composer.ComposerError):
        return ""
    if isinstance(error, yaml.constructor.ConstructorError):
        return "; write plain values, without tags such as '!x'"
    return "; indent by spaces, close every bracket and quote, quote texts that hold ':' or '#'"


def _plain_values(text: str) -> Any:
    """A YAML document's values, by the safe loader.

    Raises:
        yaml.YAMLError: Also if a mapping repeats a key, of which the safe loader would keep only the last, or if the
            document is larger than any configuration with its aliases written out.
    """
    loader = _loader()(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_node(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


@functools.cache
def _loader() -> Any:
    """PyYAML's safe loader, to which 1e-3 is a number, as in YAML 1.2, and no text."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    number = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    return Loader


def _check_node(node: Any, sizes: dict[int, int]) -> int:
    """Looks at a document before it is built; its number of nodes, where each alias counts as all that it stands for.

    Args:
        node: The document's, or a part's.
        sizes: Numbers by the identity of what was looked at; 0 for what holds the present node.
    """
    import yaml

    if id(node) in sizes:
        if not sizes[id(node)]:
            raise yaml.composer.ComposerError(None, None, "an alias stands within what it stands for", node.start_mark)
        return sizes[id(node)]
    sizes[id(node)], size, parts = 0, 1, []
    if isinstance(node, yaml.MappingNode):
        _check_once(node)
        parts = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        parts = node.value
    for part in parts:
        size += _check_node(part, sizes)
        if size > MAX_NODES:
            problem = f"more than {MAX_NODES} values, with its aliases written out; write less"
            raise yaml.composer.ComposerError(None, None, problem, node.start_mark)
    sizes[id(node)] = size
    return size


def _check_once(node: Any) -> None:
    """Refuses a mapping with a key that is there twice; merged mappings (``<<``) may be several."""
    import yaml

    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        if (name := (key.tag, key.value)) in lines:
            problem = f"the key {key.value!r} is there twice, first in line {lines[name]}; keep one of them"
            raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
        lines[name] = key.start_mark.line + 1


def typed(value: Any) -> Any:
    """Text as what a file would have there: Snakemake reads what is nested in a value of ``--config`` as text."""
    import yaml

    if isinstance(value, dict):
        return {key: typed(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [typed(entry) for entry in value]
    if not isinstance(value, str):
        return value
    try:
        found = _plain_values(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        return value
    is_sentence = isinstance(found, dict | list) and not value.lstrip().startswith(("{", "["))  # "this: that"
    return value if is_sentence else found


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
